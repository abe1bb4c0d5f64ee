"""The prover: machine code, lifted to p-code, is executed symbolically against named obligations.

It imports spec alone: what is to be proved is a value, and nothing here knows where an image came from.
"""
