"""The functions of a running kernel that are dumped, and what the spec says of attaching programs to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec.structs import asdict

import model
from impl.linux.instruments.dumping import Attaching
from spec import operations as op
from spec.errors import BadInputError
from spec.operations import Operation
from spec.outcomes import Errno
from spec.populations import make_world
from spec.semantics import Semantics
from spec.worlds import Function, World

__all__ = ["label", "matching", "parse_programs", "population", "predicted", "representatives", "shape"]

KINDS = ("fentry", "fexit", "fmod_ret", "fsession")
NUMBER = re.compile("[1-9][0-9]?", re.ASCII)

Answers = tuple[tuple[str, ...], tuple[str | None, ...]]
"""Of the loads and of the attaches, as impl.linux.instruments.dumping.Answer has them."""


def parse_programs(text: str) -> tuple[str, ...]:
    """The kinds that `fentry=2,fexit=1` stands for: fentry, fentry, fexit."""
    kinds: list[str] = []
    for part in text.split(","):
        kind, _, number = part.partition("=")
        if kind not in KINDS or kind in kinds or not NUMBER.fullmatch(number):
            known = ", ".join(KINDS)
            raise BadInputError(f"--programs {text}: write KIND=N,... with N from 1 to 99, each KIND once, of {known}")
        kinds += [kind] * int(number)
    return tuple(kinds)


def label(attaching: Attaching) -> str:
    """The part of an image file's name that tells the programs: `fentry2_fexit1.cookie.ip.flags16`."""
    kinds = "_".join(f"{kind}{attaching.kinds.count(kind)}" for kind in dict.fromkeys(attaching.kinds))
    given = asdict(attaching.attached.options)
    options = (name if value is True else f"{name}{value}" for name, value in given.items() if value)
    return ".".join((kinds, *options))


def population(described: Mapping[str, Any], name: str) -> World:
    """The world of a kernel's own functions, given as a population file has them."""
    return make_world(name, described)


def shape(function: Function) -> tuple[object, ...]:
    """What makes a trampoline: sizes of arguments and return value, and which are structs, or unions, by value."""
    prototype = function.prototype
    assert prototype is not None
    types = (*prototype.arguments, prototype.returns)
    described = ((kind.size, kind.kind if kind.by_value else "") for kind in types)
    return (*described, prototype.variadic)


def representatives(world: World, attaching: Attaching, is_unique: Callable[[Function], bool]) -> list[Function]:
    """One function for each shape, in address order: the last one that accepts the programs and has a unique name.

    Late in the kernel's text are drivers and protocols, which do not run while their trampolines are looked at.
    """
    chosen: dict[tuple[object, ...], tuple[bool, bool, int]] = {}
    for number, function in enumerate(world.functions):
        if function.btf_id is not None:
            rank = (_accepts(function, attaching), is_unique(function), number)
            chosen[shape(function)] = max(rank, chosen.get(shape(function), rank))
    return [world.functions[number] for number in sorted(number for _, _, number in chosen.values())]


def _accepts(function: Function, attaching: Attaching) -> bool:
    """Whether the attributes of the function allow all programs."""
    needed = {"fmod_ret"} if "fmod_ret" in attaching.kinds else set()
    needed |= {"sleepable"} if attaching.sleepable else set()
    return needed <= function.attributes and not function.attributes & {"deny", "noreturn"}


def matching(world: World, pattern: str) -> list[Function]:
    """The functions that a glob selects and BTF names; BadInputError if there are none."""
    found = [function for function in world.matching(pattern) if function.btf_id is not None]
    if not found:
        raise BadInputError(f"--functions {pattern}: none of the traceable functions that BTF names matches")
    return found


def predicted(function: Function, attaching: Attaching, semantics: Semantics) -> Answers:
    """What the model answers to the loads, then to the attaches."""
    system = model.system(World("dump", (function,)), semantics)
    places = range(len(attaching.kinds))
    loads = _apply_all(system.apply, (_load(function, attaching, place) for place in places))
    links = (op.BpfRawTracepointOpen(f"l{place}", f"p{place}", cookie=attaching.cookie_of(place)) for place in places)
    attaches = [None if load else _apply_all(system.apply, [link])[0] for load, link in zip(loads, links, strict=True)]
    return loads, tuple(attaches)


def _load(function: Function, attaching: Attaching, place: int) -> Operation:
    return op.BpfProgLoad(
        f"p{place}",
        attaching.kinds[place],
        target=function.name,
        sleepable=attaching.sleepable,
        func_ip=attaching.ip,
    )


def _apply_all(apply: Callable[[Operation], object], operations: Iterable[Operation]) -> tuple[str, ...]:
    outcomes = [apply(operation) for operation in operations]
    return tuple(outcome.name if isinstance(outcome, Errno) else "" for outcome in outcomes)
