"""The executable reference model: slow, obvious, one page for each kernel concept; it imports spec alone.

Every operation is a pure function from State to State; a refusal raises `Refused` and leaves the state as it was.
"""

from model.system import Model, system

__all__ = ["Model", "system"]
