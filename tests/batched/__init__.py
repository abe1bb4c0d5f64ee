"""Tests of the optimized implementation and its machine code."""
