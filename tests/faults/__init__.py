"""Tests of faults in a real kernel, one allocation after the other."""
