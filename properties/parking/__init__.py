"""Tasks parked at every instruction of every kind of image, while an operation changes what they stand in.

It is the verb `sweep`. What must come of each is what the model says of the point as which the instruction counts
(spec.standing); nothing here states an expectation of its own.
"""
