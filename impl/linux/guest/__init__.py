"""The machine: packages, QEMU, the agent, and batches of system calls for it. Nothing here knows of ftrace or BPF."""
