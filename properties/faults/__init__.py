"""Faults of a real kernel at every place: each operation of the alphabet, while the k-th of its allocations fails.

A scenario is an operation with what comes before it. It is taken once for each k, in lockstep with the model, which
sees nothing of the fault (FAIL-4); a kernel without fail-nth is given the points that can be made to fail in any.
"""
