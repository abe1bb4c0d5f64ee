"""What wildcard attaches would do to a world, and what they would cost: they are run on `batched`.

It prints nothing.
"""
