"""A template: the code of an image, with holes for the addresses that depend on its place and its function."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impl.batched.jit.plan import LinkRun
from spec.errors import BadInputError

__all__ = ["BitField", "Form", "Hole", "Skip", "Template", "relocate_many"]

MODULUS: Final = 1 << 64
HALF: Final = 1 << 63
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class BitField:
    """Bits of a value in a little-endian word of code.

    offset: of the word, from the hole's first byte; size: 1, 2, 4 or 8 bytes; low, bits: where in the word; shift: how
    many low bits of the value are not in this field.
    """

    offset: int
    size: int
    low: int
    bits: int
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Form:
    """How code holds an address. size: the hole's, in bytes.

    origin: the address is held as the distance from this many bytes behind the hole's first; None: as it is.
    reach: how many bits, the sign among them, a distance may have. align: what a distance is a multiple of.
    """

    name: str
    size: int
    fields: tuple[BitField, ...]
    origin: int | None = None
    reach: int = 64
    align: int = 1

    @property
    def whole(self) -> bool:
        """Whether the hole is one word, that holds all of the address or distance."""
        one = BitField(0, self.size, 0, 8 * self.size)
        return self.fields == (one,) and self.align == 1 and (self.origin is None or self.reach == one.bits)


@dataclass(frozen=True, slots=True)
class Hole:
    """A place for the address of a symbol, plus addend. offset: from the code's first byte."""

    offset: int
    form: Form
    symbol: str
    addend: int = 0


@dataclass(frozen=True, slots=True)
class Skip:
    """A run of a program begins with a nop at `at`, which becomes a jump to `behind` when the program is detached.

    enters: where its program is entered, by a call of __bpf_prog_enter or its kin.
    """

    run: LinkRun
    at: int
    behind: int
    enters: int


class _Part(NamedTuple):
    """One hole, prepared for relocating: the symbol, what is added to it, and the words of code to put it in.

    limit: of a distance, either way; 0: no distance. words: the word, and the shift, mask and low bit of its field.
    """

    symbol: str
    added: int
    limit: int
    align: int
    words: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class Template:
    """Code and its holes, where it is all zeros.

    after_call: offset of the nop behind the call of the original, which becomes a jump to `epilogue` on teardown; both
    None without such a call, and so are: enters, the call of __bpf_tramp_enter; returned, the return address of the
    original; exited, behind the call of __bpf_tramp_exit. skips: of each run, in running order.
    """

    code: bytes
    holes: tuple[Hole, ...]
    after_call: int | None = None
    epilogue: int | None = None
    skips: tuple[Skip, ...] = ()
    enters: int | None = None
    returned: int | None = None
    exited: int | None = None

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The names that relocating asks for."""
        return frozenset(hole.symbol for hole in self.holes)

    def relocate(self, address: int, symbols: Mapping[str, int]) -> bytes:
        """The code for an address. BadInputError where a symbol is missing, or out of a call's reach."""
        whole = self._whole
        if whole is None:
            return self._relocate(address, symbols)
        pieces = self._pieces.copy()
        try:
            pieces[1::2] = [
                symbols[symbol] + added - address if relative else symbols[symbol] + added
                for symbol, added, relative in whole[1]
            ]
            return whole[0].pack(*pieces)
        except (KeyError, struct.error):
            return self._relocate(address, symbols)

    def _relocate(self, address: int, symbols: Mapping[str, int]) -> bytes:
        """Relocates holes of any form, to any address."""
        pieces = self._pieces.copy()
        place = 1
        try:
            for symbol, added, limit, align, words in self._parts:
                value = symbols[symbol] + added
                if limit:
                    value = _wrap(value - address)
                    if not -limit <= value < limit or value % align:
                        raise _refuse_reach(symbol)
                for word, shift, mask, low in words:
                    pieces[place] = word | (value >> shift & mask) << low
                    place += 2
        except KeyError as error:
            raise BadInputError(f"the template needs the address of {error}") from error
        return self._struct.pack(*pieces)

    @cached_property
    def _parts(self) -> tuple[_Part, ...]:
        return tuple(self._make_part(hole) for hole in self.holes)

    @cached_property
    def _whole(self) -> tuple[struct.Struct, tuple[tuple[str, int, bool], ...]] | None:
        """If every hole is a whole word: what packs them; for each its symbol, what is added, if a distance."""
        if not all(hole.form.whole for hole in self.holes):
            return None
        relative = [hole.form.origin is not None for hole in self.holes]
        parts = tuple((part.symbol, part.added, near) for part, near in zip(self._parts, relative, strict=True))
        return struct.Struct(self._write_layout(relative)), parts

    def _make_part(self, hole: Hole) -> _Part:
        form = hole.form
        words = tuple(
            (self._read_word(hole, field), field.shift, (1 << field.bits) - 1, field.low) for field in form.fields
        )
        if form.origin is None:
            return _Part(hole.symbol, hole.addend, 0, 1, words)
        added = hole.addend - hole.offset - form.origin
        return _Part(hole.symbol, added, 1 << (form.reach - 1), form.align, words)

    def _read_word(self, hole: Hole, field: BitField) -> int:
        start = hole.offset + field.offset
        return int.from_bytes(self.code[start : start + field.size], "little")

    def fields(self) -> Iterator[tuple[int, int]]:
        """Offset and size of each word that relocating writes, in order."""
        for hole in self.holes:
            for field in hole.form.fields:
                yield hole.offset + field.offset, field.size

    @cached_property
    def _struct(self) -> struct.Struct:
        return struct.Struct(self._write_layout([False] * len(list(self.fields()))))

    def _write_layout(self, signed: Sequence[bool]) -> str:
        """Writes the format by which struct packs code and words in turn."""
        text, end = "<", 0
        for (start, size), sign in zip(self.fields(), signed, strict=True):
            text += f"{start - end}s{_CODES[size].lower() if sign else _CODES[size]}"
            end = start + size
        return f"{text}{len(self.code) - end}s"

    @cached_property
    def _pieces(self) -> list[Any]:
        """The pieces that the struct packs: code between words, and at odd places the words."""
        pieces: list[Any] = []
        end = 0
        for start, size in self.fields():
            pieces += [self.code[end:start], 0]
            end = start + size
        return [*pieces, self.code[end:]]


_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _refuse_reach(symbol: str) -> BadInputError:
    return BadInputError(f"{symbol} is too far from the code that goes to it")


def relocate_many(
    template: Template, addresses: Words, symbols: Mapping[str, int | Words], rows: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The code at each address, a row each: what Template.relocate() gives, with symbols that may differ by row.

    rows: an array to write it to, which is returned; contiguous, with rows that may be longer. BadInputError as there.
    """
    made = np.empty((len(addresses), len(template.code)), np.uint8) if rows is None else rows
    missing = sorted(template.symbols - symbols.keys())
    if missing:
        raise BadInputError(f"the template needs the address of {missing[0]!r}")
    made[:, : len(template.code)] = np.frombuffer(_fill_constants(template, symbols), np.uint8)
    extremes = (int(addresses.min()), int(addresses.max())) if len(addresses) else (0, 0)
    for hole in template.holes:
        symbol = symbols[hole.symbol]
        if _is_constant(hole, symbol):
            continue
        if hole.form.whole and isinstance(symbol, int):
            _put_distances(made, hole, addresses, extremes, symbol)
            continue
        values = _compute_values(hole, addresses, symbol)
        for field in hole.form.fields:
            _put(made, hole.offset + field.offset, field, values)
    return made


def _is_constant(hole: Hole, symbol: int | Words) -> bool:
    """Whether a hole's value does not depend on the code's address."""
    return hole.form.origin is None and isinstance(symbol, int)


def _fill_constants(template: Template, symbols: Mapping[str, int | Words]) -> bytes:
    """Fills the holes that hold the same in every row."""
    code = bytearray(template.code)
    for hole in template.holes:
        symbol = symbols[hole.symbol]
        if hole.form.origin is None and isinstance(symbol, int):
            for field in hole.form.fields:
                start = hole.offset + field.offset
                bits = (symbol + hole.addend >> field.shift & (1 << field.bits) - 1) << field.low
                word = int.from_bytes(code[start : start + field.size], "little") | bits
                code[start : start + field.size] = word.to_bytes(field.size, "little")
    return bytes(code)


def _put_distances(
    made: NDArray[np.uint8], hole: Hole, addresses: Words, extremes: tuple[int, int], symbol: int
) -> None:
    """Puts the distances to one symbol, that are a word each; extremes: the lowest and the highest address.

    The low bits of a distance are the distance of the low bits, which one pass puts in place.
    """
    form = hole.form
    assert form.origin is not None
    target, limit = symbol + hole.addend - hole.offset - form.origin, 1 << (form.reach - 1)
    longest, shortest = (_wrap(target - address) for address in extremes)
    if not -limit <= shortest <= longest < limit:
        raise _refuse_reach(hole.symbol)
    words = _words_of(made, hole.offset, form.size)
    np.subtract(words.dtype.type(target % (1 << form.reach)), addresses.astype(words.dtype), out=words)


def _wrap(distance: int) -> int:
    """A distance as a signed number of 64 bits."""
    return (distance + HALF) % MODULUS - HALF


def _words_of(made: NDArray[np.uint8], start: int, size: int) -> NDArray[Any]:
    """The word at this offset of each row."""
    count, length = made.shape
    return np.ndarray((count,), f"<u{size}", made.data, start, (length,))


def _compute_values(hole: Hole, addresses: Words, symbol: int | Words) -> Words:
    form = hole.form
    base = np.uint64(symbol % MODULUS) if isinstance(symbol, int) else symbol
    if form.origin is None:
        return base + np.uint64(hole.addend % MODULUS) + np.zeros(len(addresses), np.uint64)
    with np.errstate(over="ignore"):
        values: Words = base + np.uint64((hole.addend - hole.offset - form.origin) % MODULUS) - addresses
    limit = 1 << (form.reach - 1)
    distances = values.view(np.int64)
    strays = form.align > 1 and bool(np.any(distances % form.align))
    if strays or (len(distances) and not -limit <= int(distances.min()) <= int(distances.max()) < limit):
        raise _refuse_reach(hole.symbol)
    return values


def _put(made: NDArray[np.uint8], start: int, field: BitField, values: Words) -> None:
    words = _words_of(made, start, field.size)
    if field.bits == 8 * field.size and not field.shift:
        words[:] = values.astype(words.dtype)
    else:
        bits = (values >> np.uint64(field.shift) & np.uint64((1 << field.bits) - 1)) << np.uint64(field.low)
        words |= bits.astype(words.dtype)
