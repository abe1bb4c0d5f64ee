"""What is checked, and how: a package for each stage of the flow, from the verbs of the front door down to the report.

A package imports only packages on floors beneath its own; tests/harness/test_rooms.py has the floors.
"""
