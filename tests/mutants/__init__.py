"""Tests of mutants of the kernel's machine code."""
