"""Tests of the real kernel in a virtual machine."""
