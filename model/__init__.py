"""The executable reference model: slow, obvious, one page for each kernel concept; it imports spec alone.

Every operation is a pure function from State to State; one that is refused raises `Refused`, which has the state left.
"""

from model.system import Model, system

__all__ = ["Model", "system"]
