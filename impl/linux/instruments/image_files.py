"""The file of a live trampoline (spec.images), from what the kernel shows of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from impl.linux.architectures import Architecture
from impl.linux.instruments.objects import NotedJump
from impl.linux.probes.enabled import parse_enabled_functions
from impl.linux.probes.symbols import Symbols
from spec.images import HEAP, Address, CallEntry, Code, ImageFile, Options, PatchEntry, ProgramEntry, TypeEntry
from spec.prototypes import Prototype, Type

__all__ = ["Attached", "DumpedTrampoline", "image_file"]


@dataclass(frozen=True, slots=True)
class Attached:
    """What is attached to a function: kinds in the order of attaching, and what programs and links were asked for.

    sleepable: whether all programs are, or none.
    """

    order: tuple[str, ...]
    options: Options
    cookies: tuple[int, ...] | None
    sleepable: bool


@dataclass(frozen=True, slots=True)
class DumpedTrampoline:
    """A trampoline in place.

    declaration: the function's prototype in C. start, prologue: the function's address and first 16 bytes. image, code:
    the image's address, and its bytes through its last `ret` at least. lines: the function's of enabled_functions.
    programs: the struct bpf_prog of each program by the address that is called; im: the struct bpf_tramp_image; jumps:
    what it notes; as far as they were found.
    """

    function: str
    declaration: str
    prototype: Prototype
    btf_id: int
    start: int
    prologue: bytes
    image: int
    code: bytes
    lines: tuple[str, ...]
    programs: Mapping[int, int]
    im: int | None
    jumps: tuple[NotedJump, ...] | None = None


def image_file(
    architecture: Architecture,
    names: tuple[str, str],
    attached: Attached,
    trampoline: DumpedTrampoline,
    symbols: Symbols,
) -> ImageFile:
    """The file of a live trampoline; the symbols are those of the time at which it is in place.

    names: the kernel's and its release's.
    """
    kernel, release = names
    site = architecture.decode_site(trampoline.start, trampoline.prologue)
    calls, used = _find_calls(architecture, trampoline, symbols)
    prototype = trampoline.prototype
    (listed,) = parse_enabled_functions("\n".join(trampoline.lines))
    return ImageFile(
        kernel=kernel,
        release=release,
        attach={kind: attached.order.count(kind) for kind in dict.fromkeys(attached.order)},
        attach_order=attached.order,
        options=attached.options,
        function=trampoline.function,
        prototype=trampoline.declaration,
        btf_id=trampoline.btf_id,
        ret=_type_entry(prototype.returns),
        args=tuple(map(_type_entry, prototype.arguments)),
        nregs=len(prototype.slots),
        trampoline_symbol=_spell(symbols, trampoline.image),
        function_address=Address(trampoline.start),
        function_prologue_bytes=Code(trampoline.prologue),
        fentry_offset=site.address - trampoline.start,
        callsite_target=None if site.target is None else Address(site.target),
        callsite_target_sym=None if site.target is None else _spell(symbols, site.target),
        enabled_functions=trampoline.lines,
        image_address=Address(trampoline.image),
        image_size_ksym=listed.entry.size if listed.entry and not listed.entry.offset else len(trampoline.code),
        used_bytes=used,
        image_hex=Code(trampoline.code),
        calls=calls,
        programs=_find_programs(calls, trampoline.programs, sleepable=attached.sleepable),
        cookies=None if attached.cookies is None else tuple(map(Address, attached.cookies)),
        im=None if trampoline.im is None else Address(trampoline.im),
        patches=None if trampoline.jumps is None else tuple(_list_patches(trampoline.image, trampoline.jumps)),
    )


def _list_patches(image: int, jumps: Iterable[NotedJump]) -> Iterator[PatchEntry]:
    for jump in jumps:
        pointer = None if jump.program is None else Address(jump.program)
        yield PatchEntry(jump.at - image, Address(jump.target), pointer)


def _find_calls(
    architecture: Architecture, trampoline: DumpedTrampoline, symbols: Symbols
) -> tuple[tuple[CallEntry, ...], int]:
    """The calls and constants that are kernel addresses, and the bytes used; other constants are cookies."""
    calls = []
    used = 0
    for instruction in architecture.read_image(trampoline.image, trampoline.code):
        used = instruction.offset + instruction.size
        target = instruction.number
        if instruction.listed and target is not None and target >= architecture.kernel_addresses:
            symbol = _spell(symbols, target)
            calls.append(CallEntry(instruction.offset, instruction.listed, Address(target), symbol))
    return tuple(calls), used


def _find_programs(
    calls: Sequence[CallEntry], pointers: Mapping[int, int], *, sleepable: bool
) -> tuple[ProgramEntry, ...]:
    # A program is called at its start, a function of such a name behind its site.
    found = {call.sym: call.target for call in calls if call.sym.startswith("bpf_prog_") and "+" not in call.sym}
    return tuple(
        ProgramEntry(name, found[name], Address(pointers[found[name]]) if found[name] in pointers else None, sleepable)
        for name in sorted(found, key=_by_number)
    )


def _by_number(name: str) -> tuple[str | int, ...]:
    # p2 before p10
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def _type_entry(kind: Type) -> TypeEntry:
    return TypeEntry(kind.name, kind.kind, kind.size)


def _spell(symbols: Symbols, address: int) -> str:
    place = symbols.at(address)
    return str(place) if place else HEAP
