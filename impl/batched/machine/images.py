"""BPF trampolines in memory: one image for each function, or for each set of programs and shape, built by templates.

Images are built and freed in bulk: those that one plan describes are relocated together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import Functions, Indices
from impl.batched.jit.generate import template
from impl.batched.jit.plan import ImagePlan, TrampLink
from impl.batched.jit.template import Template, relocate_many
from impl.batched.machine import addresses as at
from impl.batched.machine.arena import Arena
from impl.batched.machine.entries import body_addresses, entry_addresses
from impl.batched.machine.routines import routines
from impl.batched.machine.structs import ProgramObject
from impl.batched.sets import ProgramSets
from impl.batched.state import Program, State
from impl.batched.trampolines import FRESH, Trampolines
from spec.abi import SLOT_BYTES
from spec.operations import LSM
from spec.prototypes import Prototype, Shape

__all__ = [
    "JUMPED",
    "PROGRAM_BYTES",
    "Images",
    "Pieces",
    "PlacedImage",
    "code_address",
    "image_object",
    "normal",
    "object_index",
    "program_symbols",
]

FEW: Final = 6
"""Up to this number, images are relocated faster one by one."""

PROGRAM_BYTES: Final = 32
FEXIT_JUMP: Final = 0xE9
WORD: Final = np.uint64(8)
SMALLEST: Final = np.uint64(64)
"""No image is smaller, so that each has its own struct bpf_tramp_image."""

LOW_HALF: Final = (1 << 32) - 1
JUMPED: Final = 1
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(slots=True)
class _Shared:
    """An image that serves several functions; `users` counts them."""

    where: int
    size: int
    users: int = 0


class _Content(NamedTuple):
    """The content of an image: its class of programs, the class still linked, and whether it is ORIG_STACK."""

    made_of: int
    linked: int
    orig_stack: bool


class _Recipe(NamedTuple):
    """Images of one content have this in common, of whatever shape: fields of ImagePlan, and then two more.

    symbols: the addresses that are the same for all functions. gone: the places of links that are jumped over.
    """

    links: tuple[TrampLink, ...]
    func_ip: bool
    orig_stack: bool
    site: Literal["call", "jmp"]
    shared: bool
    symbols: Mapping[str, int]
    gone: frozenset[int]

    def plan_for(self, shape: Shape | None) -> ImagePlan:
        """The plan of an image for functions of a shape."""
        return ImagePlan(
            shape,
            self.links,
            func_ip=self.func_ip,
            orig_stack=self.orig_stack,
            site=self.site,
            shared=self.shared,
        )


def normal(prototype: Prototype) -> Shape:
    """The simplest shape whose words lie where this function's do: an image moves words, and any result."""
    if prototype.in_registers:
        return Shape((SLOT_BYTES,) * len(prototype.slots), SLOT_BYTES)
    sizes = (SLOT_BYTES if argument.size <= SLOT_BYTES else 2 * SLOT_BYTES for argument in prototype.arguments)
    return Shape(tuple(sizes), SLOT_BYTES)


def code_address(number: int) -> int:
    """The address of a program's code."""
    return at.PROGRAMS + PROGRAM_BYTES * number


class Pieces(NamedTuple):
    """Pieces of the arena: offsets and sizes, in bytes. calls: of an image that serves one function, as _calls."""

    where: NDArray[np.int64]
    size: NDArray[np.int64]
    calls: NDArray[np.bool_]


NOTHING: Final = Pieces(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_))


class PlacedImage(NamedTuple):
    """An image that a task may be in: its address, its code's template, and the numbers of its programs, by link."""

    address: int
    made: Template
    programs: tuple[int, ...]


class Images:
    """size: of each function's image, in bytes, 0 without one; its place in the arena has bit 0 set for a jump."""

    def __init__(self, functions: Functions, level: str, arena: Arena, *, jmp_sites: bool) -> None:
        self._place = np.zeros(functions.count, np.int32)
        self.size = np.zeros(functions.count, np.uint16)
        self._keys = np.zeros(functions.count, np.uint64)
        # Whether each function's image calls the original.
        self._calls = np.zeros(functions.count, np.bool_)
        self._level = level
        self._jmp_sites = jmp_sites and level == "per_function"
        self._arena = arena
        self._shared: dict[int, _Shared] = {}
        self._number, self._shapes = shapes(functions, level)

    def targets(self) -> NDArray[np.uint32]:
        """The target of each function's direct call: the low half of an address, bit 0 set for a jump; 0 for none."""
        addresses = self._place.view(np.uint32) + np.uint32(at.IMAGES & LOW_HALF)
        return np.where(self.size > 0, addresses, np.uint32(0))

    def where(self, index: int) -> int:
        """The place of a function's image."""
        return int(self._place[index]) & ~JUMPED

    def change(self, state: State) -> Pieces:
        """Builds what images the state needs and does not have.

        Returns the pieces that no function uses any more; the caller gives them to `release` when no site calls them.
        """
        trampolines = state.trampolines
        made_of = trampolines.images()[: len(self._keys)]
        keys = self._make_content_keys(trampolines, made_of)
        changed = np.flatnonzero(keys != self._keys)
        if not len(changed):
            return NOTHING
        replaced = changed[self.size[changed] > 0]
        present = changed[made_of[changed] > 0]
        places = self._place[replaced].astype(np.int64) & ~JUMPED
        old = Pieces(places, self.size[replaced].astype(np.int64), self._calls[replaced])
        groups = trampolines.groups
        if groups is None:
            self._place[changed] = self.size[changed] = 0
            self._put(state, present)
        else:
            left = _mix(self._keys[replaced], groups[replaced])
            self._place[changed] = self.size[changed] = 0
            self._join(state, present, _mix(keys[present], groups[present]))
            old = self._leave(left)
        self._keys[changed] = keys[changed]
        return old

    def _make_content_keys(self, trampolines: Trampolines, made_of: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Fingerprints of what each image is made of, 0 without one."""
        prints = trampolines.sets.fingerprints[made_of]
        count = len(made_of)
        keys: NDArray[np.uint64] = (prints ^ trampolines.orig_stack[:count].astype(np.uint64)) * _ODD
        stale = np.flatnonzero(trampolines.stale[:count] != FRESH)
        if len(stale):
            linked = trampolines.sets.fingerprints[trampolines.sets.of[stale]]
            keys[stale] = (keys[stale] ^ (linked + np.uint64(1))) * _MIX
        keys[made_of == 0] = 0
        return keys

    def _join(self, state: State, where: Indices, keys: NDArray[np.uint64]) -> None:
        """These functions take the images of these keys; an image is built for its first function."""
        distinct, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        known = [self._shared.get(key) for key in distinct.tolist()]
        missing = [place for place, shared in enumerate(known) if shared is None]
        makers = where[first[missing]]
        self._put(state, makers)
        for place, maker in zip(missing, makers.tolist(), strict=True):
            shared = _Shared(int(self._place[maker]), int(self.size[maker]))
            known[place] = self._shared[int(distinct[place])] = shared
        found = [shared for shared in known if shared is not None]
        for shared, count in zip(found, counts.tolist(), strict=True):
            shared.users += count
        self._place[where] = np.array([shared.where for shared in found], np.int32)[inverse]
        self.size[where] = np.array([shared.size for shared in found], np.uint16)[inverse]

    def _leave(self, keys: NDArray[np.uint64]) -> Pieces:
        """Functions leave the images of these keys; returns the pieces that no function uses any more."""
        freed = []
        distinct, counts = np.unique(keys, return_counts=True)
        for key, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            shared = self._shared[key]
            shared.users -= count
            if not shared.users:
                del self._shared[key]
                freed.append((shared.where, shared.size))
        where, size = np.array(freed, np.int64).reshape(-1, 2).T
        return Pieces(where, size, np.zeros(len(freed), np.bool_))

    def _put(self, state: State, where: Indices) -> None:
        """A new image for each of these functions."""
        recipes: dict[_Content, _Recipe] = {}
        for content, shape, members in self._group(state, where):
            if content not in recipes:
                recipes[content] = self._make_recipe(state, content)
            self._build(recipes[content], shape, members)

    def _group(self, state: State, where: Indices) -> Iterator[tuple[_Content, Shape | None, Indices]]:
        """Groups these functions by the content of their images, and by shape."""
        trampolines = state.trampolines
        made_of, linked = trampolines.images(where), trampolines.sets.of[where]
        stacked = trampolines.orig_stack[where]
        numbers = self._number[where]
        words = np.zeros(len(where), np.int64)
        for column in (made_of, linked, stacked, numbers):
            if most := int(column.max(initial=0)):
                words = words * (most + 1) + column.astype(np.int64)
        # numpy sorts small numbers by radix.
        order = np.argsort(words.astype(np.min_scalar_type(int(words.max(initial=0)))), kind="stable")
        ends = np.flatnonzero(np.diff(words[order])) + 1
        for members in np.split(order, ends) if len(order) else []:
            one = members[0]
            content = _Content(int(made_of[one]), int(linked[one]), bool(stacked[one]))
            yield content, self._shapes[numbers[one]], where[members]

    def _build(self, recipe: _Recipe, shape: Shape | None, where: Indices) -> None:
        plan = recipe.plan_for(shape)
        made = template(plan)
        places = self._arena.place(len(made.code), len(where))
        symbols: dict[str, int | NDArray[np.uint64]] = {name: recipe.symbols.get(name, 0) for name in made.symbols}
        symbols |= {name: where_of(where, places) for name, where_of in _OWN_SYMBOLS.items() if name in made.symbols}
        rows = self._arena.rows(places, len(made.code))
        code = _relocate(made, np.uint64(at.IMAGES) + places.astype(np.uint64), symbols, rows)
        if recipe.gone:
            _skip(made, code, recipe.gone)
        if code is not rows:
            self._arena.write(places, code)
        self._place[where] = places | (JUMPED if plan.site == "jmp" else 0)
        self.size[where] = len(made.code)
        self._calls[where] = plan.calls_original

    def _make_recipe(self, state: State, content: _Content) -> _Recipe:
        sets = state.trampolines.sets
        nodes = sets.row(content.made_of)
        programs = [state.program_numbered[int(sets.node_program[node])] for node in nodes]
        calls = any(program.kind != "fentry" for program in programs)
        jumped = self._jmp_sites and calls and not content.orig_stack
        return _Recipe(
            tuple(_make_link(sets, node, program) for node, program in zip(nodes, programs, strict=True)),
            any(program.func_ip for program in programs),
            content.orig_stack,
            "jmp" if jumped else "call",
            self._level != "per_function",
            {**routines().address, **program_symbols(state, nodes)},
            _find_gone(state, content, nodes) if content.linked != content.made_of else frozenset(),
        )

    def template_of(self, state: State, index: int) -> Template:
        """The template of a function's image."""
        where = np.array([index])
        ((content, shape, _),) = self._group(state, where)
        return template(self._make_recipe(state, content).plan_for(shape))

    def placed(self, state: State, index: int) -> PlacedImage | None:
        """A function's image, if it has one."""
        if not self.size[index]:
            return None
        sets = state.trampolines.sets
        nodes = sets.row(int(state.trampolines.images(np.array([index]))[0]))
        programs = tuple(int(sets.node_program[node]) for node in nodes)
        return PlacedImage(at.IMAGES + self.where(index), self.template_of(state, index), programs)

    def release(self, pieces: Pieces) -> None:
        """Frees images that no site calls any more."""
        for size in np.unique(pieces.size).tolist():
            self._arena.free(pieces.where[pieces.size == size], size)


def _make_link(sets: ProgramSets, node: int, program: Program) -> TrampLink:
    kind = program.kind
    if kind == LSM:
        kind = "fmod_ret" if sets.is_modifying(node) else "fexit"
    return TrampLink(kind, program.sleepable, program.is_guarded())  # type: ignore[arg-type]


def _relocate(
    made: Template,
    addresses: NDArray[np.uint64],
    symbols: Mapping[str, int | NDArray[np.uint64]],
    rows: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """The code at each address, a row each; symbols that are arrays have an element for each. rows: to write it to."""
    if len(addresses) > FEW:
        return relocate_many(made, addresses, symbols, rows)
    copies = []
    for place, address in enumerate(addresses.tolist()):
        own = {name: found if isinstance(found, int) else int(found[place]) for name, found in symbols.items()}
        copies.append(made.relocate(address, own))
    return np.frombuffer(b"".join(copies), np.uint8).reshape(len(copies), -1).copy()


def object_index(place: int) -> int:
    """Which struct bpf_tramp_image the image at a place of the arena has."""
    return place // int(SMALLEST)


def image_object(places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The struct bpf_tramp_image of the images at these places of the arena."""
    objects: NDArray[np.uint64] = np.uint64(at.IMAGE_OBJECTS) + places.astype(np.uint64) // SMALLEST * WORD
    return objects


_OWN_SYMBOLS: Final[dict[str, Callable[[Indices, NDArray[np.int64]], NDArray[np.uint64]]]] = {
    "body": lambda where, _: body_addresses(where),
    "function": lambda where, _: entry_addresses(where),
    "im": lambda _, places: image_object(places),
}
"""The symbols that each image has its own of, of functions and of places in the arena."""


def program_symbols(state: State, nodes: list[int]) -> dict[str, int]:
    """The addresses that an image's links have, by place."""
    trampolines = state.trampolines
    found = {}
    for place, node in enumerate(nodes):
        number = int(trampolines.sets.node_program[node])
        found[f"code {place}"] = code_address(number)
        found[f"prog {place}"] = at.PROGRAM_OBJECTS + ProgramObject.SIZE * number
        found[f"cookie {place}"] = int(trampolines.cookies[node])
    return found


def _find_gone(state: State, content: _Content, nodes: list[int]) -> frozenset[int]:
    """The places of links whose programs have left the function (IMAGE-2)."""
    sets = state.trampolines.sets
    still = {int(sets.node_program[node]) for node in sets.row(content.linked)}
    return frozenset(place for place, node in enumerate(nodes) if int(sets.node_program[node]) not in still)


def _skip(made: Template, code: NDArray[np.uint8], gone: frozenset[int]) -> None:
    """Jumps over the runs of these links, as bpf_trampoline_skip_prog() patches them."""
    for skip in made.skips:
        if skip.run.link in gone:
            jump = bytes([FEXIT_JUMP]) + (skip.behind - skip.at - 5).to_bytes(4, "little")
            code[:, skip.at : skip.at + len(jump)] = np.frombuffer(jump, np.uint8)


def _mix(keys: NDArray[np.uint64], groups: NDArray[np.int32]) -> NDArray[np.uint64]:
    """One number for an image's content and the group of functions that it may serve."""
    mixed: NDArray[np.uint64] = (keys ^ (groups.astype(np.uint64) + np.uint64(1)) * _MIX) * _ODD
    return mixed


_SHAPES: WeakKeyDictionary[Functions, dict[str, tuple[NDArray[np.int16], list[Shape | None]]]] = WeakKeyDictionary()


def shapes(functions: Functions, level: str) -> tuple[NDArray[np.int16], list[Shape | None]]:
    """The number of each function's shape, and the shapes; None is any that stays in registers."""
    known = _SHAPES.setdefault(functions, {})
    if level not in known:
        known[level] = _number_shapes(functions, level)
    return known[level]


def _number_shapes(functions: Functions, level: str) -> tuple[NDArray[np.int16], list[Shape | None]]:
    numbers: dict[Shape | None, int] = {Shape((), 0): 0}
    found = np.zeros(functions.count, np.int16)
    for index, function in enumerate(functions.all):
        prototype = function.prototype
        if prototype is not None and prototype.describable:
            generic = level == "generic" and prototype.in_registers
            found[index] = numbers.setdefault(None if generic else normal(prototype), len(numbers))
    return found, list(numbers)
