"""The guest: the files of its kernel, QEMU, the agent, and batches of system calls for it. Nothing of ftrace or BPF."""
