"""Work that can be divided: units as values, the processes that do them, and the crews of processes and machines.

It knows nothing of what a unit does. Units stand beside that: `properties.hunt.units`, `properties.proofs.units`.
"""
