"""What is proved with the prover: image files, generated images, those that `batched` has in place, and helpers.

Each module makes images and the goals that they must meet; a goal comes from what was attached, never from the image.
How a proof is carried out is for `properties.prover` alone.
"""
