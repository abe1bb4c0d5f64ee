"""What must hold: numbered rules (README.md), the vocabulary of operations and observations, and the contracts.

Everything here is a value or a pure function. It imports nothing of model, impl or properties.
"""
