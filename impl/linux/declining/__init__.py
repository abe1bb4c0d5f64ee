"""A real kernel is not asked to do some things: the reasons, in words that follow the system's name.

`decliner` asks the others by the operation: `ftrace` of ops and direct calls, `graph`, `ipmodify`, `bpf`; `patterns` is
what globs select. Others ask for themselves: `faults` where memory is lacking, `tasks` where some stand, `pokes` at a
stop.
"""
