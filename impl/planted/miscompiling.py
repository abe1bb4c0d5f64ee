"""Bugs in machine code: one instruction of a routine or a template is replaced by another of its size."""

from __future__ import annotations

from dataclasses import replace

from impl.batched.jit.assembler import assemble
from impl.batched.jit.template import Template
from impl.batched.machine.routines import Routines

__all__ = ["miscompiled", "mistemplated"]


def miscompiled(right: Routines, text: str, wrong: str, *, routine: str | None = None, but_last: int = 0) -> Routines:
    """The routines with one instruction replaced: the only one of this text, or the first of a routine.

    but_last: how many bytes at the end of both are a distance, which stays as it is.
    """
    old, new = (assemble(one, 0)[: -but_last or None] for one in (text, wrong))
    start = right.address[routine] - min(right.address.values()) if routine else 0
    code = right.code
    assert len(old) == len(new)
    assert code.count(old) == 1 or routine
    return Routines(code[:start] + code[start:].replace(old, new, 1), right.address)


def mistemplated(right: Template, text: str, wrong: str) -> Template:
    """A template with all instructions of a text replaced."""
    old, new = assemble(text, 0), assemble(wrong, 0)
    assert len(old) == len(new)
    return replace(right, code=right.code.replace(old, new))
