"""Systems by name: built-in ones, kernels, plug-ins in this process, and plug-ins that are other processes.

It compares nothing.
"""
