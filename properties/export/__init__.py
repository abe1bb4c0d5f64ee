"""Seeds in the forms that kernel people use: a program with its modules, a kernel selftest, a text for the list.

A seed's steps are recorded from the model (recorded.py), with what each must answer and show; counterparts.py says what
has no counterpart outside of the harness. The forms are templates over that; the program's parts that are the same
for all seeds stand as C in runtime/.
"""
