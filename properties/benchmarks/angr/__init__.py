"""angr as the peer of the prover: the same obligations of the same images, in an interpreter of its own.

angr pins other versions of z3 than the prover: what is here talks to it over a pipe, one JSON object a line.
"""
