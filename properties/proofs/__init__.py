"""Proofs of trampoline images: machine code, lifted to p-code, is executed symbolically against named obligations.

The obligations come from a goal (prototype, programs, site, flags), never from the image. Imports spec alone; what
knows x86-64 is in x86_64.py.
"""
