"""What is to be proved of an image file: the goal that follows from what the kernel says in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from properties.prover.architecture import Architecture
from properties.prover.architectures import ARCHITECTURES
from properties.prover.detaching import NotedPlace
from properties.prover.goal import Goal, Kind, Program
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.steps import steps
from spec.errors import BadInputError
from spec.images import HEAP, ImageFile, ProgramEntry, parse_image_file, read_image_file
from spec.prototypes import MAX_ARGUMENT_BYTES, Prototype, Type

__all__ = ["Dump", "parse_image", "read_image"]

SLEEPABLE: Final = 16
RETURN_THUNKS: Final = frozenset(
    (
        "__x86_return_thunk retbleed_return_thunk srso_return_thunk srso_alias_return_thunk call_depth_return_thunk "
        "its_return_thunk"
    ).split()
)
"""The kernel's JIT jumps to one of these, as x86_return_thunk says, in the place of a `ret`."""

SIZES: Final[Mapping[str, Collection[int]]] = {
    "INT": (1, 2, 4, 8, 16),
    "PTR": (8,),
    "ENUM": (1, 2, 4, 8),
    "ENUM64": (8,),
    "STRUCT": range(1, MAX_ARGUMENT_BYTES + 1),
    "UNION": range(1, MAX_ARGUMENT_BYTES + 1),
}
"""Bytes that an argument or result of each kind may have."""

HELPER: Final = "__bpf_"
PROGRAM_NAME: Final = re.compile(r"_c([0-9]{1,3})_([a-z_]+)$")
IPMODIFY: Final = re.compile(r"\S+(?: \[\S+\])? +\([0-9]+\)(?: R|  ) I")
"""A line of enabled_functions on whose site an IPMODIFY ops is."""


@dataclass(frozen=True, slots=True)
class Dump:
    """An image from a file: where it is from, what was attached, and what is to be proved of it.

    noted: the places that the kernel patches while programs are detached, if the file tells.
    """

    file: str
    kernel: str
    function: str
    attached: tuple[Kind, ...]
    architecture: Architecture
    image: Image
    goal: Goal
    noted: tuple[NotedPlace, ...] | None = None


def read_image(path: Path) -> Dump:
    """Reads one file. BadInputError names the file, the field and the mistake."""
    return _dump(read_image_file(path), str(path))


def parse_image(text: str, file: str) -> Dump:
    """Reads the text of one file; `file` names it in errors."""
    return _dump(parse_image_file(text, file), file)


def _dump(image: ImageFile, file: str) -> Dump:
    try:
        architecture = _architecture(image)
        return Dump(
            file,
            image.kernel,
            image.function,
            image.kinds,
            architecture,
            _image(image, architecture),
            _goal(image),
            None if image.patches is None else tuple(_list_noted(image, architecture)),
        )
    except _MistakeError as mistake:
        raise BadInputError(str(mistake), file) from mistake


class _MistakeError(Exception):
    """Fields of a file that no image can have together, told without the file's name."""


def _architecture(image: ImageFile) -> Architecture:
    if image.arch not in ARCHITECTURES:
        raise _MistakeError(f"arch: the prover knows {' and '.join(ARCHITECTURES)}, not {image.arch[:40]!r}")
    return ARCHITECTURES[image.arch]


def _goal(image: ImageFile) -> Goal:
    helpers, objects = _calls(image)
    site, body = _site(image, ARCHITECTURES[image.arch])
    programs = _programs(image)
    sleeping = {program.sleepable for program in programs}
    goal = Goal(
        prototype=_prototype(image),
        programs=programs,
        function=image.function_address,
        body=body,
        site=site,
        helpers=helpers,
        func_ip=image.options.ip,
        shares_ipmodify=any(IPMODIFY.match(line) for line in image.enabled_functions),
        im=image.im,
        objects=objects,
        some_sleep=None in sleeping and True not in sleeping,
        return_thunks=frozenset(helpers[symbol] for symbol in RETURN_THUNKS & helpers.keys()),
        counters=_counters(image, ARCHITECTURES[image.arch]),
    )
    _demand_helpers(goal)
    return goal


def _counters(image: ImageFile, architecture: Architecture) -> dict[str, int]:
    """The counters of calls: where the file has them, or else where the image counts first."""
    found = {name: int(place) for name, place in image.counters.items() if name in architecture.counters}
    code = bytes(image.image_hex)
    for at, instruction in lifter(architecture).sweep(code, image.image_address, image.used_bytes).items():
        start = at - image.image_address
        counted = architecture.counting(code[start : start + instruction.size], at)
        if counted is not None:
            found.setdefault(*counted)
    return found


def _demand_helpers(goal: Goal) -> None:
    """Each step must have a target; of the two helpers that may enter a program, one will do."""
    for step in steps(goal):
        if all(target is None for target in step.targets):
            raise _MistakeError(f"calls: has no {step.name}, which an image of {step.place} must call")


def _list_noted(image: ImageFile, architecture: Architecture) -> Iterator[NotedPlace]:
    """Lists the places that the kernel noted, which do not overlap."""
    size, taken = len(architecture.nop), set[int]()
    for index, patch in enumerate(image.patches or ()):
        field = f"patches[{index}]"
        place = range(patch.off, patch.off + size)
        if place.stop > image.used_bytes:
            raise _MistakeError(f"{field}.off: must be in the image, with the {size} bytes of a jump")
        if not 0 <= patch.target - image.image_address < image.used_bytes:
            raise _MistakeError(f"{field}.target: must be in the image")
        if not taken.isdisjoint(place):
            raise _MistakeError(f"{field}.off: must not be in another place that is patched")
        taken.update(place)
        yield NotedPlace(image.image_address + patch.off, patch.target, patch.pointer)


def _prototype(image: ImageFile) -> Prototype:
    prototype = image.types
    if not prototype.describable:
        raise _MistakeError("args: no trampoline can serve this prototype: 12 arguments of 16 bytes at most")
    for index, each in enumerate(prototype.arguments):
        _check_type(each, f"args[{index}]")
    if prototype.returns.size:
        _check_type(prototype.returns, "ret")
    return prototype


def _check_type(each: Type, field: str) -> None:
    """Refuses what calling conventions treat in other ways, such as floating point."""
    sizes = SIZES.get(each.kind)
    if sizes is None:
        raise _MistakeError(f"{field}.kind: the prover knows {', '.join(SIZES)}, not {each.kind}")
    if each.size not in sizes:
        raise _MistakeError(f"{field}.size: no {each.kind} has {each.size} bytes")


def _programs(image: ImageFile) -> tuple[Program, ...]:
    """In the order of attaching, which the names tell: c0_fentry is the first, and an fentry program."""
    found: dict[int, ProgramEntry] = {}
    for index, listed in enumerate(image.programs):
        place = _place(listed, image.kinds, f"programs[{index}].name")
        if place in found:
            raise _MistakeError(f"programs[{index}].name: two programs have the same place in attach_order")
        found[place] = listed
    if len(found) != len(image.kinds):
        raise _MistakeError(f"programs: has {len(found)} of the {len(image.kinds)} programs in attach_order")
    return tuple(_program(image, place, found[place]) for place in range(len(image.kinds)))


def _program(image: ImageFile, place: int, listed: ProgramEntry) -> Program:
    options = image.options
    # Older files do not say to which of the programs the flags were given, and perhaps not which cookie is whose.
    sleepable = listed.sleepable
    if sleepable is None and not options.flags & SLEEPABLE:
        sleepable = False
    cookie = 0 if not options.cookie else None if image.cookies is None else image.cookies[place]
    code = listed.symbol_address
    return Program(image.kinds[place], code, listed.pointer, cookie, sleepable, options.session_cookie)


def _place(listed: ProgramEntry, kinds: tuple[Kind, ...], field: str) -> int:
    match = PROGRAM_NAME.search(listed.name)
    if not match:
        raise _MistakeError(f"{field}: must end in its place in attach_order and its kind, such as '_c0_fentry'")
    place = int(match[1])
    if place >= len(kinds) or kinds[place] != match[2]:
        raise _MistakeError(f"{field}: attach_order has no {match[2][:40]} in place {place}")
    return place


def _calls(image: ImageFile) -> tuple[Mapping[str, int], frozenset[int]]:
    """Helpers by symbol, and the heap objects: struct bpf_prog and struct bpf_tramp_image."""
    helpers: dict[str, int] = {}
    objects = set()
    for index, call in enumerate(image.calls):
        if call.sym == HEAP:
            objects.add(int(call.target))
        elif helpers.setdefault(call.sym, call.target) != call.target and call.sym.startswith(HELPER):
            raise _MistakeError(f"calls[{index}].sym: {call.sym[:40]} has two addresses")
    return helpers, frozenset(objects)


def _site(image: ImageFile, architecture: Architecture) -> tuple[Literal["call", "jmp"], int]:
    """How the image is reached, and what follows the site.

    Where others share the site, it is ftrace that calls or jumps, as its list of direct calls says.
    """
    at = image.function_address + image.fentry_offset
    branch = architecture.branch(image.function_prologue_bytes[image.fentry_offset :], at)
    if branch is None:
        raise _MistakeError(f"function_prologue_bytes: there is no call or jmp at fentry_offset {image.fentry_offset}")
    kind = branch.kind
    if branch.target != image.image_address:
        kind = "jmp" if any("direct(jmp)-->" in line for line in image.enabled_functions) else "call"
    return kind, (at + branch.size) % (1 << 64)


def _image(image: ImageFile, architecture: Architecture) -> Image:
    low, high = architecture.kernel_text
    if not low <= image.image_address <= high - len(image.image_hex):
        raise _MistakeError(f"image_address: must be in the kernel's text, from {low:#x} to {high:#x}")
    return Image(image.image_address, bytes(image.image_hex), image.used_bytes)
