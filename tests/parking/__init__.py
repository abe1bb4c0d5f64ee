"""Tests of tasks at each instruction of an image, while operations change it."""
