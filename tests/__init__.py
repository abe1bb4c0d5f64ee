"""The tests, by subject; what several of them need is in support/, and no test imports another."""
