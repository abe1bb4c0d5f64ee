"""Real kernels: their runs against the model, the rules that these confirm, what attaching costs, what to dump.

It prints nothing, and knows no verb.
"""
