"""Tests of the prover: semantics, obligations, counterexamples."""
