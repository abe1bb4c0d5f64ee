"""The prover executes machine code symbolically, lifted to p-code, and decides named obligations on every path.

`proving.prove(image, goal)` is the one way in. A goal is a value: nothing here knows where an image came from. The
prover imports spec alone; what knows a register is one module for each architecture.
"""
