"""What a BTF blob (/sys/kernel/btf/NAME) says of functions: their ids by name, and prototypes in spec's terms.

The blob is walked once, and types are read when they are asked for. A module's blob continues the ids and strings of
vmlinux's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from spec.errors import BadInputError
from spec.prototypes import Prototype, Type

__all__ = ["Btf"]

# magic, version, flags, length of this header; offset and length of the types, of the strings, and since 7.1 of the
# layouts, which tell the size of kinds that a reader does not know
HEADER = struct.Struct("<HBB5I")
LAYOUT_HEADER = struct.Struct("<2I")
LAYOUT = struct.Struct("<BBH")
MAGIC = 0xEB9F

WORD = 4
TYPE_WORDS = 3
MEMBER_WORDS = 2
WORD_BYTES = 8
MOST_CONTEXT_WORDS = 12
MOST_NESTED = 64


class Kind(IntEnum):
    """BTF_KIND_* of include/uapi/linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# words of a type of this kind, and of each of its members
SIZES = {kind.value: (TYPE_WORDS, 0) for kind in Kind} | {
    Kind.INT.value: (TYPE_WORDS + 1, 0),
    Kind.ARRAY.value: (TYPE_WORDS + 3, 0),
    Kind.STRUCT.value: (TYPE_WORDS, 3),
    Kind.UNION.value: (TYPE_WORDS, 3),
    Kind.ENUM.value: (TYPE_WORDS, 2),
    Kind.FUNC_PROTO.value: (TYPE_WORDS, MEMBER_WORDS),
    Kind.VAR.value: (TYPE_WORDS + 1, 0),
    Kind.DATASEC.value: (TYPE_WORDS, 3),
    Kind.DECL_TAG.value: (TYPE_WORDS + 1, 0),
    Kind.ENUM64.value: (TYPE_WORDS, 3),
}

SIZED: dict[int, str] = {
    Kind.INT: "INT",
    Kind.PTR: "PTR",
    Kind.STRUCT: "STRUCT",
    Kind.UNION: "UNION",
    Kind.ENUM: "ENUM",
    Kind.ENUM64: "ENUM",
}
QUALIFIERS: dict[int, str] = {
    Kind.VOLATILE: "volatile ",
    Kind.CONST: "const ",
    Kind.RESTRICT: "restrict ",
    Kind.TYPE_TAG: "",
}
TAGS: dict[int, str] = {
    Kind.STRUCT: "struct ",
    Kind.UNION: "union ",
    Kind.ENUM: "enum ",
    Kind.ENUM64: "enum ",
    Kind.FWD: "struct ",
}


class Btf:
    """The types of vmlinux or, with `base`, which is vmlinux's, of one module.

    functions: the id of each FUNC by its name. BadInputError if the blob is malformed.
    """

    def __init__(self, blob: bytes, base: Btf | None = None) -> None:
        try:
            self._read(blob, base)
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise BadInputError("the BTF is damaged: its sections do not hold the types that they announce") from error

    def _read(self, blob: bytes, base: Btf | None) -> None:
        magic, _, _, length, types_at, types_bytes, strings_at, strings_bytes = HEADER.unpack_from(blob)
        if magic != MAGIC:
            raise BadInputError("this is no BTF: it does not start with 9f eb")
        if len(blob) < length + max(types_at + types_bytes, strings_at + strings_bytes):
            raise ValueError
        self._base = base
        self._words = memoryview(blob)[length + types_at :][:types_bytes].cast("I")
        self._strings = bytes(blob[length + strings_at :][:strings_bytes])
        self._first_string = base.end_of_strings if base else 0
        self._first_id = base.end_of_ids if base else 1
        self._starts, functions = _walk(self._words, _sizes(blob, length))
        self._types: dict[int, Type] = {}
        self._prototypes: dict[int, Prototype] = {}
        self._equal: dict[Prototype, Prototype] = {}
        self.functions: Mapping[str, int] = MappingProxyType(self._named(functions))

    @property
    def end_of_ids(self) -> int:
        """The first id of a blob that continues this one."""
        return self._first_id + len(self._starts)

    @property
    def end_of_strings(self) -> int:
        """The first string's offset in a blob that continues this one."""
        return self._first_string + len(self._strings)

    def _named(self, functions: list[int]) -> dict[str, int]:
        """The first FUNC of a name is the one that the kernel finds by it (btf_find_by_name_kind)."""
        found: dict[str, int] = {}
        for place in functions:
            found.setdefault(self.name(self._words[self._starts[place]]), self._first_id + place)
        return found

    def prototype(self, function: int) -> Prototype:
        """Of the FUNC with this id; equal prototypes are one object. BadInputError if the id is no FUNC's."""
        kind, _, target = self._type(function)
        if kind != Kind.FUNC:
            raise BadInputError(f"type {function} of the BTF is no function")
        found = self._prototypes.get(target)
        if found is None:
            found = self._prototypes[target] = self._prototype(target)
        return found

    def declaration(self, function: int) -> str:
        """The FUNC with this id as a line of C, its stars apart: `int f(const struct page * page, ...)`."""
        _, name, target = self._type(function)
        words, at = self.place(target)
        arguments, returned = self._signature(target)
        members = at + TYPE_WORDS
        names = words[members : members + MEMBER_WORDS * len(arguments) : MEMBER_WORDS]
        spelled = [
            f"{self._spelled(number)} {self.name(place)}".rstrip() if number else "..."
            for place, number in zip(names, arguments, strict=True)
        ]
        return f"{self._spelled(returned)} {name}({', '.join(spelled) or 'void'})"

    def loadable(self, function: int) -> tuple[int, ...]:
        """The places in a program's context that the verifier of every kernel lets it load: slots, and the return's.

        btf_ctx_access() wants integers of at most 8 bytes, enums, structs, and pointers to void, integers, structs and
        unions; later kernels take more. No context word behind the twelfth can be loaded.
        """
        arguments, returned = self._signature(self._type(function)[2])
        places: list[int] = []
        place = 0
        for number in (*arguments, returned):
            words = -(-self._described(number).size // WORD_BYTES)
            places += range(place, place + words) if self._loadable(number) else ()
            place += words
        return tuple(place for place in places if place < MOST_CONTEXT_WORDS)

    def _loadable(self, number: int) -> bool:
        kind, size, content = self._resolved(number)
        if kind != Kind.PTR:
            return kind == Kind.STRUCT or (kind in {Kind.INT, Kind.ENUM, Kind.ENUM64} and size <= WORD_BYTES)
        return content == 0 or self._resolved(content)[0] in {Kind.INT, Kind.STRUCT, Kind.UNION}

    def _signature(self, target: int) -> tuple[list[int], int]:
        """The types of a FUNC_PROTO's arguments, and of its return value; 0 is void, and as the last argument `...`."""
        words, at = self.place(target)
        members = at + TYPE_WORDS
        arguments = words[members + 1 : members + MEMBER_WORDS * (words[at + 1] & 0xFFFFFF) : MEMBER_WORDS]
        return arguments.tolist(), words[at + 2]

    def _prototype(self, target: int) -> Prototype:
        arguments, returned = self._signature(target)
        variadic = arguments[-1:] == [0]
        described = tuple(self._described(number) for number in (arguments[:-1] if variadic else arguments))
        prototype = Prototype(described, self._described(returned), variadic)
        return self._equal.setdefault(prototype, prototype)

    def _described(self, number: int) -> Type:
        """The type of an argument or return value; one that the kernel cannot pass has kind VOID and size 0."""
        found = self._types.get(number)
        if found is None:
            found = self._types[number] = Type(self._spelled(number), *self._sized(number))
        return found

    def _sized(self, number: int) -> tuple[str, int]:
        kind, size, _ = self._resolved(number)
        return SIZED.get(kind, "VOID"), size

    def _resolved(self, number: int) -> tuple[int, int, int]:
        """Kind and size behind typedefs and qualifiers, size 0 for what cannot be passed; the target of a pointer."""
        for _ in range(MOST_NESTED):
            kind, _, content = self._type(number)
            if kind == Kind.PTR:
                return kind, WORD_BYTES, content
            if kind != Kind.TYPEDEF and kind not in QUALIFIERS:
                return kind, content if kind in SIZED else 0, 0
            number = content
        raise BadInputError(f"the BTF is damaged: type {number} is defined by itself")

    def _spelled(self, number: int, depth: int = MOST_NESTED) -> str:
        """Qualifiers from the outside in, the innermost type, a star for each pointer: `const struct page * *`."""
        before = after = ""
        for left in range(depth, 0, -1):
            kind, name, content = self._type(number)
            if kind == Kind.ARRAY:
                element, _, length = self._array(number)
                return f"{before}{self._spelled(element, left - 1)}[{length}]{after}"
            if kind == Kind.PTR:
                after += " *"
            elif kind in QUALIFIERS:
                before += QUALIFIERS[kind]
            else:
                return before + _core(kind, name) + after
            number = content
        raise BadInputError(f"the BTF is damaged: type {number} is defined by itself")

    def _array(self, number: int) -> list[int]:
        """The types of element and index, and the length."""
        words, at = self.place(number)
        return words[at + TYPE_WORDS : at + TYPE_WORDS + 3].tolist()

    def _type(self, number: int) -> tuple[int, str, int]:
        """Kind, name, and the size or the type that it refers to."""
        if not number:
            return Kind.VOID, "", 0
        words, at = self.place(number)
        return words[at + 1] >> 24 & 0x7F, self.name(words[at]), words[at + 2]

    def place(self, number: int) -> tuple[memoryview[int], int]:
        """The words among which a type stands, and where."""
        if self._base and number < self._first_id:
            return self._base.place(number)
        if not self._first_id <= number < self.end_of_ids:
            raise BadInputError(f"the BTF has no type {number}")
        return self._words, self._starts[number - self._first_id]

    def name(self, offset: int) -> str:
        """The string at an offset, of this blob's or its base's."""
        if self._base and offset < self._first_string:
            return self._base.name(offset)
        start = offset - self._first_string
        return self._strings[start : self._strings.index(0, start)].decode()


def _core(kind: int, name: str) -> str:
    if kind == Kind.VOID:
        return "void"
    if kind == Kind.FUNC_PROTO:
        return "func(*)"
    return TAGS.get(kind, "") + (name or "(anon)")


def _walk(words: memoryview[int], sizes: Mapping[int, tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Where each type starts, and which of them are functions."""
    starts: list[int] = []
    functions: list[int] = []
    at, end, function = 0, len(words), Kind.FUNC.value
    while at < end:
        info = words[at + 1]
        kind = info >> 24 & 0x7F
        if kind == function:
            functions.append(len(starts))
        starts.append(at)
        fixed, each = sizes[kind]
        at += fixed + each * (info & 0xFFFFFF)
    if at > end:
        raise ValueError
    return starts, functions


def _sizes(blob: bytes, length: int) -> Mapping[int, tuple[int, int]]:
    """Words of a type and of its members by kind, of kinds unknown here as the blob itself tells."""
    if length < HEADER.size + LAYOUT_HEADER.size:
        return SIZES
    offset, size = LAYOUT_HEADER.unpack_from(blob, HEADER.size)
    layouts = LAYOUT.iter_unpack(blob[length + offset : length + offset + size])
    told = {kind: (TYPE_WORDS + fixed // WORD, each // WORD) for kind, (fixed, each, _) in enumerate(layouts)}
    return told | SIZES
