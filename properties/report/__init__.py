"""Checks in order, and how results are shown: tables, text, JUnit XML.

It decides nothing.
"""
