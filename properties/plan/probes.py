"""Probes: what the command line asks to attach, as tools write it, and the functions that it matches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from properties.plan.selecting import VMLINUX, NameGlob, Selection, parse_types, select_as_retsnoop
from spec.errors import BadInputError
from spec.globs import matcher, record_index, without_bang
from spec.operations import LSM
from spec.populations.hooks import PREFIX as HOOK
from spec.worlds import Function, World

__all__ = ["KINDS", "SINGLE", "Probe", "is_program", "parse_probe", "parse_probes", "snoop"]

KINDS: Final = {
    "fentry": "fentry",
    "kfunc": "fentry",
    "f": "fentry",
    "fexit": "fexit",
    "kretfunc": "fexit",
    "fr": "fexit",
    "fmod_ret": "fmod_ret",
    "lsm": "lsm",
    "fsession": "fsession",
}
SINGLE: Final = frozenset({"fmod_ret", "lsm"})
"""Kinds that no call attaches to many functions (PROG-1)."""

SPELLED: Final = [kind for kind in KINDS if len(kind) > 2]
KPROBES: Final = {"kprobe": "fentry", "k": "fentry", "kretprobe": "fexit", "kr": "fexit"}
BESIDE: Final = re.compile(r"(?:BEGIN|END|begin|end|config\s*=|(?:interval|i|profile|p|self):.*)", re.DOTALL)
"""What of a program of bpftrace attaches to no function of the kernel."""

IGNORED: Final = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
PREDICATE: Final = re.compile(r"/[^/{}]*/\s*(?=\{)")
COMMA: Final = re.compile(r",(?![^()]*\))")
TYPED: Final = re.compile(r"(?P<glob>[^()]*)\((?P<types>[^()]*)\)\s*")
MOST_NESTED: Final = 32


@dataclass(frozen=True, slots=True)
class Probe:
    """One pattern of the command line: a program of this kind, and the functions that are matched.

    matched: those with a site, or as retsnoop chooses. passed_over: how many functions retsnoop leaves out, by reason.
    """

    name: str
    kind: str
    pattern: str
    matched: tuple[Function, ...]
    selection: Selection
    passed_over: Mapping[str, int] = field(default_factory=dict)


def is_program(text: str) -> bool:
    """Whether a word is bpftrace's: probes with their kinds, and perhaps blocks."""
    return any(part.strip().partition(":")[0] in {*KINDS, *KPROBES} for part in COMMA.split(_without_blocks(text)))


def parse_probes(texts: Sequence[str], world: World, denied: tuple[NameGlob, ...] = ()) -> list[Probe]:
    """The probes of the command line, of which a word may have several, as bpftrace writes them, blocks and all."""
    split = [probe for text in texts for probe in _split(text)]
    return [parse_probe(text, number, world, denied) for number, text in enumerate(split, 1)]


def _split(text: str) -> Iterator[str]:
    """The probes of one word; if all that there is attaches to no function, that."""
    probes = [probe.strip() for probe in COMMA.split(_without_blocks(text))]
    found = [probe for probe in probes if probe and not BESIDE.fullmatch(probe)]
    yield from found or [text]


def _without_blocks(text: str) -> str:
    """Probes between commas: blocks and predicates are left out, and comments and strings, which may hold braces."""
    outside = PREDICATE.sub("", IGNORED.sub(lambda found: "" if found[0].startswith("/") else '""', text))
    for _ in range(MOST_NESTED):
        outside, found = re.subn(r"\{[^{}]*\}", ",", outside)
        if not found:
            break
    if "{" in outside or "}" in outside:
        raise BadInputError(f"the braces of '{text}' do not match")
    return outside


def parse_probe(text: str, number: int, world: World, denied: tuple[NameGlob, ...] = ()) -> Probe:
    """The number-th probe of the command line; BadInputError if it is no KIND:[MODULE:]GLOB or matches nothing."""
    kind, colon, rest = text.partition(":")
    typed = TYPED.fullmatch(rest)
    module, named, glob = (typed["glob"] if typed else rest).rpartition(":")
    glob = glob or ("*" if typed else "")
    if not (kind and colon and glob and (module or not named)):
        raise BadInputError(f"'{text}' is no pattern: write KIND:GLOB, such as fentry:vfs_*, or KIND:MODULE:GLOB")
    if kind in KPROBES:
        raise BadInputError(
            f"unknown kind '{kind}' in '{text}': write {KPROBES[kind]}:{rest} to plan trampolines instead"
        )
    if kind not in KINDS:
        raise BadInputError(f"unknown kind '{kind}' in '{text}': write one of {', '.join(SPELLED)}")
    if without_bang(glob)[1]:
        raise BadInputError(f"'{text}' asks for removal: write the glob without '!', and --deny GLOB beside it")
    if kind == LSM and not glob.startswith(HOOK):
        # As libbpf reads the section lsm/NAME.
        glob = HOOK + glob
    types = parse_types(typed["types"], world) if typed else ()
    selection = Selection((NameGlob(glob, module if named else None),), denied, types)
    matched = _match(selection, world)
    if not matched:
        raise BadInputError(f"'{text}' matches no function of the world {world.name}")
    return Probe(f"P{number}", KINDS[kind], text, matched, selection)


def _match(selection: Selection, world: World) -> tuple[Function, ...]:
    """The functions that the kernel's glob selects, of the module that the probe names."""
    (wanted,) = selection.globs
    # A number is ftrace's name for a record; BPF has no such names.
    matched = world.matching(wanted.glob) if record_index(wanted.glob) is None else ()
    of_module = matcher(wanted.module or "*")
    return tuple(f for f in matched if of_module(f.module or VMLINUX) and selection.keeps(f))


def snoop(
    entry: tuple[NameGlob, ...], allowed: tuple[NameGlob, ...], denied: tuple[NameGlob, ...], first: int, world: World
) -> list[Probe]:
    """A fentry and a fexit probe, as retsnoop -F attaches both to all functions that it chooses.

    first: the number of the first probe. BadInputError if a glob for entry functions matches none.
    """
    for each in entry:
        if not select_as_retsnoop(Selection((each,), denied, by_retsnoop=True), world)[0]:
            raise BadInputError(f"-e '{each}' matches no function of the world {world.name} that retsnoop attaches to")
    selection = Selection((*entry, *allowed), denied, by_retsnoop=True)
    chosen, passed_over = select_as_retsnoop(selection, world)
    lists = (("-e", entry), ("-a", allowed), ("-d", denied))
    pattern = " ".join(f"{option} '{each}'" for option, globs in lists for each in globs)
    return [
        Probe(f"P{number}", kind, pattern, chosen, selection, passed_over)
        for number, kind in enumerate(("fentry", "fexit"), first)
    ]
