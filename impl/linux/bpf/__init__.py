"""bpf(2): instructions, recorder programs, maps and links, and what a kernel can do with them."""
