"""The search: Hypothesis draws steps, lockstep takes them, and what diverges is shrunk.

It prints nothing.
"""
