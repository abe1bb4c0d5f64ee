"""What is read of a running kernel: BTF, symbols, the sites of ftrace, trampolines, trace events."""
