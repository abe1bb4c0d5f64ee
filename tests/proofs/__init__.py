"""Tests of what is proved with the prover."""
