"""What is proved with the prover: generated images of every arity, images that are in place, image files, helpers.

Each image comes with a goal (prototype, programs, site, flags), which is never read off its code.
"""
