"""What a BTF blob (/sys/kernel/btf/NAME) says of functions: their ids by name, and prototypes in spec's terms.

The blob is walked once, and types are read when they are asked for. A module's blob continues the ids and strings of
vmlinux's.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import IntEnum
from types import MappingProxyType

from spec.abi import SLOT_BYTES
from spec.errors import BadInputError
from spec.prototypes import Prototype, Type

__all__ = ["BTF_FILES", "VMLINUX_BTF", "Btf", "BtfKind"]

BTF_FILES = "/sys/kernel/btf"
VMLINUX_BTF = f"{BTF_FILES}/vmlinux"

# magic, version, flags, length of this header; offset and length of the types, of the strings, and since 7.1 of the
# layouts, which hold the sizes of kinds, for readers that do not know them
HEADER = struct.Struct("<HBB5I")
LAYOUT_HEADER = struct.Struct("<2I")
LAYOUT = struct.Struct("<BBH")
MAGIC = 0xEB9F

# BTF is made of words of four bytes
WORD_BYTES = 4
TYPE_WORDS = 3
MEMBER_WORDS = 2
MOST_CONTEXT_WORDS = 12
MOST_NESTED = 64
BITS_PER_BYTE = 8


BtfKind = IntEnum(
    "BtfKind",
    "VOID INT PTR ARRAY STRUCT UNION ENUM FWD TYPEDEF VOLATILE CONST RESTRICT FUNC FUNC_PROTO VAR DATASEC FLOAT "
    "DECL_TAG TYPE_TAG ENUM64",
    start=0,
)
"""BTF_KIND_* of include/uapi/linux/btf.h."""

# words of a type of this kind, and of each of its members
SIZES = {kind.value: (TYPE_WORDS, 0) for kind in BtfKind} | {
    BtfKind.INT.value: (TYPE_WORDS + 1, 0),
    BtfKind.ARRAY.value: (TYPE_WORDS + 3, 0),
    BtfKind.STRUCT.value: (TYPE_WORDS, 3),
    BtfKind.UNION.value: (TYPE_WORDS, 3),
    BtfKind.ENUM.value: (TYPE_WORDS, 2),
    BtfKind.FUNC_PROTO.value: (TYPE_WORDS, MEMBER_WORDS),
    BtfKind.VAR.value: (TYPE_WORDS + 1, 0),
    BtfKind.DATASEC.value: (TYPE_WORDS, 3),
    BtfKind.DECL_TAG.value: (TYPE_WORDS + 1, 0),
    BtfKind.ENUM64.value: (TYPE_WORDS, 3),
}

SIZED: dict[int, str] = {
    BtfKind.INT: "INT",
    BtfKind.PTR: "PTR",
    BtfKind.STRUCT: "STRUCT",
    BtfKind.UNION: "UNION",
    BtfKind.ENUM: "ENUM",
    BtfKind.ENUM64: "ENUM",
}
QUALIFIERS: dict[int, str] = {
    BtfKind.VOLATILE: "volatile ",
    BtfKind.CONST: "const ",
    BtfKind.RESTRICT: "restrict ",
    BtfKind.TYPE_TAG: "",
}
TAGS: dict[int, str] = {
    BtfKind.STRUCT: "struct ",
    BtfKind.UNION: "union ",
    BtfKind.ENUM: "enum ",
    BtfKind.ENUM64: "enum ",
    BtfKind.FWD: "struct ",
}


class Btf:
    """The types of vmlinux or, with `base`, which is vmlinux's, of one module.

    functions: the id of each FUNC by its name. repeated: how many more a name has. BadInputError if the blob is
    malformed.
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
        self._starts, functions = _walk(self._words, _read_sizes(blob, length))
        self._types: dict[int, Type] = {}
        self._prototypes: dict[int, Prototype] = {}
        self._equal: dict[Prototype, Prototype] = {}
        self.repeated: Counter[str] = Counter()
        self.functions: Mapping[str, int] = MappingProxyType(self._name_functions(functions))

    @property
    def end_of_ids(self) -> int:
        """The first id of a blob that continues this one."""
        return self._first_id + len(self._starts)

    @property
    def end_of_strings(self) -> int:
        """The first string's offset in a blob that continues this one."""
        return self._first_string + len(self._strings)

    def _name_functions(self, functions: list[int]) -> dict[str, int]:
        """The first FUNC of a name is the one that the kernel finds by it (btf_find_by_name_kind)."""
        found: dict[str, int] = {}
        for place in functions:
            name, number = self.name(self._words[self._starts[place]]), self._first_id + place
            self.repeated[name] += found.setdefault(name, number) != number
        return found

    def prototype(self, function: int) -> Prototype:
        """The prototype of the FUNC with this id; equal ones are one object. BadInputError if the id is no FUNC's."""
        kind, _, target = self._read_type(function)
        if kind != BtfKind.FUNC:
            raise BadInputError(f"type {function} of the BTF is no function")
        found = self._prototypes.get(target)
        if found is None:
            found = self._prototypes[target] = self._make_prototype(target)
        return found

    def declaration(self, function: int) -> str:
        """The FUNC with this id as a line of C: `int f(const struct page * page, ...)`."""
        _, name, target = self._read_type(function)
        words, at = self.place(target)
        arguments, returned = self._read_signature(target)
        members = at + TYPE_WORDS
        names = words[members : members + MEMBER_WORDS * len(arguments) : MEMBER_WORDS]
        spelled = [
            f"{self._spell(number)} {self.name(place)}".rstrip() if number else "..."
            for place, number in zip(names, arguments, strict=True)
        ]
        return f"{self._spell(returned)} {name}({', '.join(spelled) or 'void'})"

    def loadable(self, function: int) -> tuple[int, ...]:
        """The places in a program's context that the verifier of every kernel lets it load: slots, and the return's.

        btf_ctx_access() wants integers of at most 8 bytes, enums, structs, and pointers to void, integers, structs and
        unions; later kernels take more. No context word behind the twelfth can be loaded.
        """
        arguments, returned = self._read_signature(self._read_type(function)[2])
        places: list[int] = []
        place = 0
        for number in (*arguments, returned):
            words = -(-self._describe(number).size // SLOT_BYTES)
            places += range(place, place + words) if self._is_loadable(number) else ()
            place += words
        return tuple(place for place in places if place < MOST_CONTEXT_WORDS)

    def _is_loadable(self, number: int) -> bool:
        kind, size, content = self._resolve(number)
        if kind != BtfKind.PTR:
            return kind == BtfKind.STRUCT or (
                kind in {BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64} and size <= SLOT_BYTES
            )
        return content == 0 or self._resolve(content)[0] in {BtfKind.INT, BtfKind.STRUCT, BtfKind.UNION}

    def member_offset(self, struct_name: str, member: str) -> int:
        """The offset in bytes of a member of a struct; BadInputError if there is none such."""
        for offsets in (members for _, members in self.structs(struct_name) if member in members):
            return offsets[member]
        raise BadInputError(f"this kernel has no member {member} in its struct {struct_name}")

    def structs(self, struct_name: str) -> Iterator[tuple[int, Mapping[str, int]]]:
        """Each struct of a name: its size, and the offset of each member, in bytes."""
        for number in range(self._first_id, self.end_of_ids):
            kind, name, size = self._read_type(number)
            if kind == BtfKind.STRUCT and name == struct_name:
                words, at = self.place(number)
                places = range(at + TYPE_WORDS, at + TYPE_WORDS + 3 * (words[at + 1] & 0xFFFF), 3)
                bits = {self.name(words[place]): words[place + 2] & 0xFFFFFF for place in places}
                yield size, {name: offset // BITS_PER_BYTE for name, offset in bits.items()}

    def _read_signature(self, target: int) -> tuple[list[int], int]:
        """The types of a FUNC_PROTO's arguments, and of its return value; 0 is void, and as the last argument `...`."""
        words, at = self.place(target)
        members = at + TYPE_WORDS
        arguments = words[members + 1 : members + MEMBER_WORDS * (words[at + 1] & 0xFFFFFF) : MEMBER_WORDS]
        return arguments.tolist(), words[at + 2]

    def _make_prototype(self, target: int) -> Prototype:
        arguments, returned = self._read_signature(target)
        variadic = arguments[-1:] == [0]
        described = tuple(self._describe(number) for number in (arguments[:-1] if variadic else arguments))
        prototype = Prototype(described, self._describe(returned), variadic)
        return self._equal.setdefault(prototype, prototype)

    def _describe(self, number: int) -> Type:
        """The type of an argument or return value; one that the kernel cannot pass has kind VOID and size 0."""
        found = self._types.get(number)
        if found is None:
            found = self._types[number] = Type(self._spell(number), *self._measure(number))
        return found

    def _measure(self, number: int) -> tuple[str, int]:
        kind, size, _ = self._resolve(number)
        return SIZED.get(kind, "VOID"), size

    def _resolve(self, number: int) -> tuple[int, int, int]:
        """Kind and size behind typedefs and qualifiers, size 0 for what cannot be passed; the target of a pointer."""
        for _ in range(MOST_NESTED):
            kind, _, content = self._read_type(number)
            if kind == BtfKind.PTR:
                return kind, SLOT_BYTES, content
            if kind != BtfKind.TYPEDEF and kind not in QUALIFIERS:
                return kind, content if kind in SIZED else 0, 0
            number = content
        raise BadInputError(f"the BTF is damaged: type {number} is defined by itself")

    def _spell(self, number: int, depth: int = MOST_NESTED) -> str:
        """Qualifiers from the outside in, the innermost type, a star for each pointer: `const struct page * *`."""
        before = after = ""
        for left in range(depth, 0, -1):
            kind, name, content = self._read_type(number)
            if kind == BtfKind.ARRAY:
                element, _, length = self._read_array(number)
                return f"{before}{self._spell(element, left - 1)}[{length}]{after}"
            if kind == BtfKind.PTR:
                after += " *"
            elif kind in QUALIFIERS:
                before += QUALIFIERS[kind]
            else:
                return before + _spell_core(kind, name) + after
            number = content
        raise BadInputError(f"the BTF is damaged: type {number} is defined by itself")

    def _read_array(self, number: int) -> list[int]:
        """The types of element and index, and the length."""
        words, at = self.place(number)
        return words[at + TYPE_WORDS : at + TYPE_WORDS + 3].tolist()

    def _read_type(self, number: int) -> tuple[int, str, int]:
        """Kind, name, and the size or the type that it refers to."""
        if not number:
            return BtfKind.VOID, "", 0
        words, at = self.place(number)
        return words[at + 1] >> 24 & 0x7F, self.name(words[at]), words[at + 2]

    def place(self, number: int) -> tuple[memoryview[int], int]:
        """The blob's words that hold a type, and its place in them."""
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


def _spell_core(kind: int, name: str) -> str:
    if kind == BtfKind.VOID:
        return "void"
    if kind == BtfKind.FUNC_PROTO:
        return "func(*)"
    return TAGS.get(kind, "") + (name or "(anon)")


def _walk(words: memoryview[int], sizes: Mapping[int, tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Where each type starts, and which of them are functions."""
    starts: list[int] = []
    functions: list[int] = []
    at, end, function = 0, len(words), BtfKind.FUNC.value
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


def _read_sizes(blob: bytes, length: int) -> Mapping[int, tuple[int, int]]:
    """Words of a type and of its members by kind; for kinds that are unknown here, as the blob says itself."""
    if length < HEADER.size + LAYOUT_HEADER.size:
        return SIZES
    offset, size = LAYOUT_HEADER.unpack_from(blob, HEADER.size)
    layouts = LAYOUT.iter_unpack(blob[length + offset : length + offset + size])
    own = {
        kind: (TYPE_WORDS + fixed // WORD_BYTES, each // WORD_BYTES) for kind, (fixed, each, _) in enumerate(layouts)
    }
    return own | SIZES
