"""Tests of lockstep, search, systems, and the repository itself."""
