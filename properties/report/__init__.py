"""Checks, results and tables as values (`results`, `grid`), how checks are run, and how everything is shown.

It decides nothing, and knows nothing of what is checked.
"""
