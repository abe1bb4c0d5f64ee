"""Probes: what the command line asks to attach, as tools write it, and the functions that it matches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from properties.plan.programs import list_probes
from properties.plan.selecting import VMLINUX, NameGlob, Selection, function_matcher, parse_types, select_as_retsnoop
from spec.errors import BadInputError, clip
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
TYPED: Final = re.compile(r"(?P<glob>[^()]*)\((?P<types>[^()]*)\)\s*")
SECTION: Final = re.compile(r"(?P<kind>[a-z_]+)(?:\.multi)?(?P<sleepable>\.s)?/(?P<rest>.*)", re.DOTALL)
"""As libbpf spells a probe: fentry/FUNCTION, fexit.multi/GLOB."""

HOW: Final = re.compile(r"(?P<module>(?:[^():]*:)?)(?:traceable|attachable)\((?P<glob>.*)\)", re.DOTALL)
MOST_LETTERS: Final = 511
"""KSYM_NAME_LEN, less the NUL: as long as a symbol can be."""

MOST_SHOWN: Final = 5
PLAIN: Final = re.compile(r"[\w*?.]+")


@dataclass(frozen=True, slots=True)
class Probe:
    """One pattern of the command line: a program of this kind, and the functions that are matched.

    matched: those with a site, those without one if there are no others, or as retsnoop chooses. passed_over: how many
    functions retsnoop leaves out, by reason.
    """

    name: str
    kind: str
    pattern: str
    matched: tuple[Function, ...]
    selection: Selection
    passed_over: Mapping[str, int] = field(default_factory=dict)


def is_program(text: str) -> bool:
    """Whether a word is bpftrace's: probes with their kinds, and perhaps blocks."""
    return any(probe.partition(":")[0] in {*KINDS, *KPROBES} for probe in list_probes(text))


def parse_probes(texts: Sequence[str], world: World, denied: tuple[NameGlob, ...] = ()) -> list[Probe]:
    """The probes of the command line, one a text."""
    return [parse_probe(text, number, world, denied) for number, text in enumerate(texts, 1)]


def parse_probe(text: str, number: int, world: World, denied: tuple[NameGlob, ...] = ()) -> Probe:
    """The number-th probe of the command line; BadInputError if it is no KIND:[MODULE:]GLOB or matches nothing."""
    kind, rest = _split_kind(text, world)
    typed = TYPED.fullmatch(rest)
    module, named, glob = (typed["glob"] if typed else rest).rpartition(":")
    glob = glob or ("*" if typed else "")
    _check(text, module if named else None, glob, world)
    if kind == LSM and not glob.startswith(HOOK):
        # As libbpf reads the section lsm/NAME.
        glob = HOOK + glob
    types = parse_types(typed["types"], world) if typed else ()
    selection = Selection((NameGlob(glob, module if named else None),), denied, types)
    matched = _match(selection, world)
    if not matched:
        beside = " but what -d leaves out" if denied else ""
        raise BadInputError(f"'{clip(text)}' matches no function of the world {world.name}{beside}")
    return Probe(f"P{number}", KINDS[kind], text, matched, selection)


def _split_kind(text: str, world: World) -> tuple[str, str]:
    """The kind, one of KINDS, and what stands behind it."""
    section = SECTION.fullmatch(text)
    if section and section["kind"] in KINDS:
        if section["sleepable"]:
            raise BadInputError(
                f"'{clip(text)}' is sleepable, which no plan is: write {section['kind']}:{clip(section['rest'])}"
            )
        return section["kind"], section["rest"]
    kind, colon, rest = text.partition(":")
    if not (kind and colon and rest):
        such = text if PLAIN.fullmatch(text) else "vfs_*"
        raise BadInputError(
            f"'{clip(text)}' is no pattern: write KIND:GLOB, such as fentry:{clip(such)}, or KIND:MODULE:GLOB"
        )
    if kind in KPROBES:
        raise BadInputError(
            f"unknown kind '{kind}' in '{clip(text)}': write {KPROBES[kind]}:{clip(rest)} to plan trampolines instead"
        )
    if kind in {VMLINUX, *world.modules}:
        raise BadInputError(f"'{clip(text)}' has no kind: write fentry:{clip(text)}, for example")
    if kind not in KINDS:
        raise BadInputError(f"unknown kind '{clip(kind)}' in '{clip(text)}': write one of {', '.join(SPELLED)}")
    if how := HOW.fullmatch(rest):
        meant = f"{kind}:{how['module']}{how['glob']}"
        raise BadInputError(f"'{clip(text)}' is how a seed spells it: write {clip(meant)}, planned as tools expand it")
    return kind, rest


def _check(text: str, module: str | None, glob: str, world: World) -> None:
    """BadInputError if this cannot be meant: module is empty, or None where none is named."""
    if not glob or module == "":
        raise BadInputError(f"'{clip(text)}' is no pattern: write KIND:GLOB, such as fentry:vfs_*, or KIND:MODULE:GLOB")
    if without_bang(glob)[1]:
        raise BadInputError(f"'{clip(text)}' asks for removal: write the glob without '!', and --deny GLOB beside it")
    if len(glob) > MOST_LETTERS:
        raise BadInputError(f"'{clip(text)}' is longer than any symbol: write a glob of at most {MOST_LETTERS} letters")
    if any(letter.isspace() for letter in f"{module}{glob}"):
        raise BadInputError(f"'{clip(text)}' has blanks: write KIND:GLOB without, and commas between several")
    if module is not None and not any(map(matcher(module), (VMLINUX, *world.modules))):
        there = clip(", ".join((VMLINUX, *world.modules)))
        raise BadInputError(f"'{clip(text)}' names no module of the world {world.name}: write one of {there}")


def _match(selection: Selection, world: World) -> tuple[Function, ...]:
    """The functions that the kernel's glob selects, of the module that the probe names.

    If there are none, those without a site, of which BPF may be asked all the same.
    """
    (wanted,) = selection.globs
    # A number is ftrace's name for a record; BPF has no such names.
    if record_index(wanted.glob) is not None:
        return ()
    of_module, called = matcher(wanted.module or "*"), matcher(wanted.glob)
    unsited = (f for f in world.others if called(f.symbol))
    for candidates in world.matching(wanted.glob), unsited:
        found = tuple(f for f in candidates if of_module(f.module or VMLINUX) and selection.keeps(f))
        if found:
            return found
    return ()


def snoop(
    entry: tuple[NameGlob, ...], allowed: tuple[NameGlob, ...], denied: tuple[NameGlob, ...], first: int, world: World
) -> list[Probe]:
    """A fentry and a fexit probe, as retsnoop -F attaches both to all functions that it chooses.

    first: the number of the first probe. BadInputError if a glob for entry functions matches none.
    """
    selection = Selection(tuple(map(_in_vmlinux, (*entry, *allowed))), denied, by_retsnoop=True)
    chosen, passed_over = select_as_retsnoop(selection, world)
    for each in entry:
        if not any(map(function_matcher([_in_vmlinux(each)]), chosen)):
            raise BadInputError(f"-e '{each}' matches no function of the world {world.name} that retsnoop attaches to")
    lists = (("-e", entry), ("-a", allowed), ("-d", denied))
    pattern = " ".join(word for option, globs in lists for word in _show(option, globs))
    return [
        Probe(f"P{number}", kind, pattern, chosen, selection, passed_over)
        for number, kind in enumerate(("fentry", "fexit"), first)
    ]


def _in_vmlinux(each: NameGlob) -> NameGlob:
    """As retsnoop has it, a glob is of vmlinux unless it names a module."""
    return replace(each, module=each.module or VMLINUX)


def _show(option: str, globs: Sequence[NameGlob]) -> Iterator[str]:
    """An option's globs, as long as a heading may have them."""
    yield from (f"{option} '{each}'" for each in globs[:MOST_SHOWN])
    if len(globs) > MOST_SHOWN:
        yield f"and {len(globs) - MOST_SHOWN:,} more of {option}"
