"""The machine that `batched` runs on: text, trampolines, programs and task stacks as bytes in emulated memory.

Everything here is x86-64 as the kernel uses it; what a trampoline consists of is impl.batched.jit's affair.
"""
