"""Implementations under test, each behind spec's System protocol.

They import spec and never model or properties: agreement with the model must mean something.
"""
