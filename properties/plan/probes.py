"""Probes: what the command line asks to attach, as tools write it, and the functions that it matches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spec.errors import BadInputError
from spec.globs import matcher, record_index, without_bang
from spec.worlds import Function, World

__all__ = ["KINDS", "Probe", "parse_probe", "parse_probes"]

KINDS = {
    "fentry": "fentry",
    "kfunc": "fentry",
    "fexit": "fexit",
    "kretfunc": "fexit",
    "fmod_ret": "fmod_ret",
    "fsession": "fsession",
}
VMLINUX = "vmlinux"
PREDICATE = re.compile(r"/[^/{}]*/\s*(?=\{)")
MOST_NESTED = 32


@dataclass(frozen=True, slots=True)
class Probe:
    """One pattern of the command line: a program of this kind, and the functions that its glob matches.

    module: that it names, `vmlinux` for the kernel proper; None for all. glob: of the functions.
    """

    name: str
    kind: str
    pattern: str
    matched: tuple[Function, ...]
    module: str | None = None
    glob: str = ""


def parse_probes(texts: Sequence[str], world: World) -> list[Probe]:
    """The probes of the command line, of which a word may have several, as bpftrace writes them, blocks and all."""
    split = [probe for text in texts for probe in _split(text)]
    return [parse_probe(text, number, world) for number, text in enumerate(split, 1)]


def _split(text: str) -> Iterator[str]:
    """The probes of one word: between commas, or before blocks, which are left out with their predicates."""
    outside = PREDICATE.sub("", text)
    for _ in range(MOST_NESTED):
        outside, found = re.subn(r"\{[^{}]*\}", ",", outside)
        if not found:
            break
    if "{" in outside or "}" in outside:
        raise BadInputError(f"the braces of '{text}' do not match")
    probes = [probe.strip() for probe in outside.split(",")]
    yield from (probe for probe in probes if probe) if any(probes) else [text]


def parse_probe(text: str, number: int, world: World) -> Probe:
    """The number-th probe of the command line; BadInputError if it is no KIND:[MODULE:]GLOB or matches nothing."""
    kind, colon, rest = text.partition(":")
    module, named, glob = rest.rpartition(":")
    if not (kind and colon and glob and (module or not named)):
        raise BadInputError(f"'{text}' is no pattern: write KIND:GLOB, such as fentry:vfs_*, or KIND:MODULE:GLOB")
    if kind not in KINDS:
        raise BadInputError(f"unknown kind '{kind}' in '{text}': write one of {', '.join(KINDS)}")
    if without_bang(glob)[1]:
        raise BadInputError(f"'{text}' asks for removal: write the glob without '!'")
    # A number is ftrace's name for a record; BPF has no such names.
    matched = world.matching(glob) if record_index(glob) is None else ()
    if named:
        of_module = matcher(module)
        matched = tuple(function for function in matched if of_module(function.module or VMLINUX))
    if not matched:
        raise BadInputError(f"'{text}' matches no function of the world {world.name}")
    return Probe(f"P{number}", KINDS[kind], text, matched, module if named else None, glob)
