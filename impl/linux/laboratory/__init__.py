"""What is put into a kernel for our runs: modules with the functions of a world, and their control."""
