"""Mutants of a real kernel's machine code: how many small changes of it the harness sees.

A survey tells which instructions the fixed runs execute. Mutants of those are drawn, or named as bugs that the kernel
once had; each is poked into a guest, and judged by fixed runs that execute it, and by search.
"""
