"""Probes: what the command line asks to attach, and the functions that it matches."""

from __future__ import annotations

from dataclasses import dataclass

from spec.errors import BadInputError
from spec.globs import record_index, without_bang
from spec.worlds import Function, World

__all__ = ["KINDS", "Probe", "parse_probe"]

KINDS = {
    "fentry": "fentry",
    "kfunc": "fentry",
    "fexit": "fexit",
    "kretfunc": "fexit",
    "fmod_ret": "fmod_ret",
    "fsession": "fsession",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One pattern of the command line: a program of this kind, and the functions that its glob matches."""

    name: str
    kind: str
    pattern: str
    matched: tuple[Function, ...]


def parse_probe(text: str, number: int, world: World) -> Probe:
    """The number-th probe of the command line; BadInputError if the text is no KIND:GLOB or matches nothing."""
    kind, colon, glob = text.partition(":")
    if not (kind and colon and glob):
        raise BadInputError(f"'{text}' is no pattern: write KIND:GLOB, such as fentry:vfs_*")
    if kind not in KINDS:
        raise BadInputError(f"unknown kind '{kind}' in '{text}': write one of {', '.join(KINDS)}")
    if without_bang(glob)[1]:
        raise BadInputError(f"'{text}' asks for removal: write the glob without '!'")
    # A number is ftrace's name for a record; BPF has no such names.
    matched = world.matching(glob) if record_index(glob) is None else ()
    if not matched:
        raise BadInputError(f"'{text}' matches no function of the world {world.name}")
    return Probe(f"P{number}", KINDS[kind], text, matched)
