"""The machine that `batched` runs on: text, trampolines, programs and task stacks as bytes in emulated memory.

`text` follows the state: it builds `images`, pokes sites, and frees images that no site calls. `kernel` makes calls:
`loading` and `tables` put in place what they need, `cpu` runs `routines`, `records` become a trace. Nothing here knows
how a trampoline is put together (that is impl.batched.jit), or a rule that is not about code.
"""
