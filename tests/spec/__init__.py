"""Tests of the vocabulary, the contracts and the populations."""
