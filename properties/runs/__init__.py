"""Runs that are not drawn: seeds, directed runs, the systematic sweep, and what all of them reach.

What they expect is written from the rules, never copied from a run.
"""
