"""What is checked, and how: lockstep, Hypothesis machines, seeds, reports, and the front door's verbs.

It knows systems only through spec's System protocol.
"""
