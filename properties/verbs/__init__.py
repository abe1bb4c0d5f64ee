"""The verbs of the front door: arguments, printing and exit codes.

Each module has SUMMARY, add_arguments(parser) and run(arguments). No other package of properties imports this one.
"""
