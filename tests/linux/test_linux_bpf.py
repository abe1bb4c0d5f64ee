"""BTF, BPF instructions, recorder programs and the records that they leave, without a kernel."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import cast

import pytest

from impl.linux.bpf import commands
from impl.linux.bpf import instructions as code
from impl.linux.bpf.record_map import RecordMap
from impl.linux.bpf.recorders import (
    ARGUMENTS,
    CONTEXT,
    RECORD_BYTES,
    WORDS,
    Bindings,
    RecorderProgram,
    assemble,
    decode,
    load,
)
from impl.linux.guest.batch import Batch, Ref, Reply, Struct
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest
from impl.linux.probes.btf import Btf
from spec.errors import BadInputError
from spec.prototypes import Prototype, Type

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, CONST, FUNC, FUNC_PROTO, TYPE_TAG, FLOAT = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    10,
    12,
    13,
    18,
    16,
)  # fmt: skip
LOAD, EXIT, CALL = 0x79, 0x95, 0x85
MINUS = 1 << 64
EINVAL, EOPNOTSUPP = MINUS - 22, MINUS - 95

INT_TYPE, LONG, VOID = Type("int", "INT", 4), Type("long int", "INT", 8), Type("void", "VOID", 0)
PAIR = Type("struct pair", "STRUCT", 16)
BINDINGS = Bindings(map_fd=7, session_is_return=100, session_cookie=101, nested=102)


class Blob:
    """A BTF blob while it is made: each method returns the new type's id."""

    def __init__(self, base: Blob | None = None) -> None:
        self.first_id = base.next_id if base else 1
        self.first_string = base.first_string + len(base.strings) if base else 0
        self.types: list[bytes] = []
        self.strings = b"" if base else b"\0"

    @property
    def next_id(self) -> int:
        """The id of the type that is added next."""
        return self.first_id + len(self.types)

    def add(self, kind: int, name: str = "", content: int = 0, extra: tuple[int, ...] = (), members: int = 0) -> int:
        """A type of a kind; content is its size or the type that it refers to."""
        offset = self.first_string + len(self.strings) if name else 0
        self.strings += name.encode() + b"\0" if name else b""
        self.types.append(struct.pack(f"<{3 + len(extra)}I", offset, kind << 24 | members, content, *extra))
        return self.next_id - 1

    def integer(self, name: str, size: int) -> int:
        """An integer type."""
        return self.add(INT, name, size, (8 * size,))

    def function(self, name: str, returns: int, *arguments: int) -> int:
        """A function and its prototype."""
        pairs = tuple(word for argument in arguments for word in (0, argument))
        return self.add(FUNC, name, self.add(FUNC_PROTO, "", returns, pairs, len(arguments)))

    def made(self, layout: bytes = b"") -> bytes:
        """The blob."""
        types = b"".join(self.types)
        length = 32 if layout else 24
        header = struct.pack("<HBB5I", 0xEB9F, 1, 0, length, 0, len(types), len(types), len(self.strings))
        header += struct.pack("<2I", len(types) + len(self.strings), len(layout)) if layout else b""
        return header + types + self.strings + layout


def kernel() -> tuple[Blob, dict[str, int]]:
    """A blob with the types that tests need, by how C spells them."""
    blob = Blob()
    ids = {"int": blob.integer("int", 4), "long int": blob.integer("long int", 8)}
    ids["__int128"] = blob.integer("__int128", 16)
    ids["struct pair"] = blob.add(STRUCT, "pair", 16, (0, ids["long int"], 0, 0, ids["long int"], 64), 2)
    ids["enum color"] = blob.add(ENUM, "color", 4, (0, 1), 1)
    ids["ssize_t"] = blob.add(TYPEDEF, "ssize_t", ids["long int"])
    ids["const struct pair"] = blob.add(CONST, "", ids["struct pair"])
    ids["const struct pair *"] = blob.add(PTR, "", blob.add(TYPE_TAG, "rcu", ids["const struct pair"]))
    ids["void *"] = blob.add(PTR)
    ids["const void *"] = blob.add(PTR, "", blob.add(CONST))
    ids["struct later * *"] = blob.add(PTR, "", blob.add(PTR, "", blob.add(FWD, "later")))
    ids["int[3] *"] = blob.add(PTR, "", blob.add(ARRAY, "", 0, (ids["int"], ids["int"], 3)))
    ids["func(*) *"] = blob.add(PTR, "", blob.add(FUNC_PROTO))
    ids["union (anon) *"] = blob.add(PTR, "", blob.add(UNION, "", 8))
    ids["double"] = blob.add(FLOAT, "double", 8)
    return blob, ids


def test_functions_by_name() -> None:
    """Ids are found by name, and prototypes have the kinds, sizes and names of spec's populations."""
    blob, ids = kernel()
    number = blob.function("f", ids["ssize_t"], ids["struct pair"], ids["enum color"], ids["const struct pair *"])
    btf = Btf(blob.made())

    arguments = (PAIR, Type("enum color", "ENUM", 4), Type("const struct pair *", "PTR", 8))
    assert {"f": number} == btf.functions
    assert Prototype(arguments, Type("ssize_t", "INT", 8)) == btf.prototype(number)


@pytest.mark.parametrize("spelled", sorted(kernel()[1]))
def test_spelling(spelled: str) -> None:
    """Types are spelled with qualifiers and stars, and type tags are left out."""
    blob, ids = kernel()
    btf = Btf(blob.made() if blob.function("f", ids[spelled]) else b"")

    assert spelled == btf.prototype(btf.functions["f"]).returns.name


def test_variadic_and_void() -> None:
    """A last argument without a type is `...`; a return type of 0 is void."""
    blob, ids = kernel()
    blob.function("printf", 0, ids["void *"], 0)
    btf = Btf(blob.made())

    assert Prototype((Type("void *", "PTR", 8),), VOID, variadic=True) == btf.prototype(btf.functions["printf"])


def test_what_the_kernel_cannot_pass() -> None:
    """A type that btf_distill_func_proto() has no size for makes a prototype that cannot be described."""
    blob, ids = kernel()
    blob.function("scale", ids["int"], ids["double"])
    btf = Btf(blob.made())

    assert not btf.prototype(btf.functions["scale"]).describable


def test_first_function_of_a_name() -> None:
    """Of two functions with one name the first is found, as the kernel does."""
    blob, ids = kernel()
    first = blob.function("twice", ids["int"])
    blob.function("twice", ids["long int"])

    assert first == Btf(blob.made()).functions["twice"]


def test_equal_prototypes_are_one_object() -> None:
    """Slots are worked out once for all functions of a signature."""
    blob, ids = kernel()
    numbers = [blob.function(name, ids["int"], ids["long int"]) for name in ("f", "g")]
    btf = Btf(blob.made())

    assert btf.prototype(numbers[0]) is btf.prototype(numbers[1])


def test_split_btf() -> None:
    """A module's blob continues the ids and the strings of vmlinux's, and refers to its types."""
    base, ids = kernel()
    base.function("in_vmlinux", ids["int"])
    module = Blob(base)
    own = module.add(STRUCT, "own", 8)
    number = module.function("in_module", ids["long int"], own, ids["int"])
    btf = Btf(module.made(), Btf(base.made()))

    assert {"in_module": number} == btf.functions
    assert Prototype((Type("struct own", "STRUCT", 8), INT_TYPE), LONG) == btf.prototype(number)


@pytest.mark.parametrize(
    ("arguments", "returns", "places"),
    [
        (["int", "ssize_t", "enum color"], "int", (0, 1, 2, 3)),
        (["struct pair", "int"], "long int", (0, 1, 2, 3)),
        (["__int128", "int"], "int", (2, 3)),
        (["void *", "const struct pair *", "union (anon) *"], "void *", (0, 1, 2, 3)),
        (["const void *", "func(*) *", "int[3] *", "struct later * *"], "int", (4,)),
        (["int"] * 12, "int", tuple(range(12))),
        (["int"], None, (0,)),
    ],
)
def test_loadable_places(arguments: list[str], returns: str | None, places: tuple[int, ...]) -> None:
    """Context words that btf_ctx_access() of 6.1 accepts: no 16-byte integers, no pointers to what it does not know."""
    blob, ids = kernel()
    number = blob.function("f", ids[returns] if returns else 0, *(ids[name] for name in arguments))

    assert places == Btf(blob.made()).loadable(number)


def test_unknown_kind_with_a_layout() -> None:
    """A kind that is newer than this reader is skipped if the blob tells its size."""
    blob, ids = kernel()
    blob.add(25, "new", 0, (1, 2, 3, 4, 5), 2)
    blob.function("f", ids["int"])
    layout = bytes(4 * 25) + struct.pack("<BBH", 4, 8, 0)

    assert ["f"] == list(Btf(blob.made(layout)).functions)
    with pytest.raises(BadInputError, match="damaged"):
        Btf(blob.made())


def cut(blob: bytes) -> bytes:
    return blob[:40]


def swapped(blob: bytes) -> bytes:
    return blob[1::-1] + blob[2:]


def crowded(blob: bytes) -> bytes:
    return blob[:28] + struct.pack("<I", STRUCT << 24 | 0xFFFF) + blob[32:]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(cut, "damaged"), (swapped, "does not start with 9f eb"), (crowded, "damaged")],
)
def test_damaged_btf(damage: Callable[[bytes], bytes], sentence: str) -> None:
    """A blob that is no BTF, or whose sections lie, is bad input."""
    with pytest.raises(BadInputError, match=sentence):
        Btf(damage(kernel()[0].made()))


def test_type_defined_by_itself() -> None:
    """A circle of typedefs ends in a sentence, and so does an id that no type has."""
    blob = Blob()
    circle = blob.add(TYPEDEF, "circle", 1)
    blob.function("f", circle)
    blob.function("g", 99)
    btf = Btf(blob.made())

    with pytest.raises(BadInputError, match="defined by itself"):
        btf.prototype(btf.functions["f"])
    with pytest.raises(BadInputError, match="no type 99"):
        btf.prototype(btf.functions["g"])
    with pytest.raises(BadInputError, match="is no function"):
        btf.prototype(circle)


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (code.move(0, 0), "b7 00 00 00 00 00 00 00"),
        (code.move(1, -5), "b7 01 00 00 fb ff ff ff"),
        (code.move(2, 1 << 33), "18 02 00 00 00 00 00 00 00 00 00 00 02 00 00 00"),
        (code.move(2, 0x80000000), "18 02 00 00 00 00 00 80 00 00 00 00 00 00 00 00"),
        (code.move(3, (1 << 64) - 1), "b7 03 00 00 ff ff ff ff"),
        (code.load_map_value(7, 5, 512), "18 27 00 00 05 00 00 00 00 00 00 00 00 02 00 00"),
        ([code.move_register(6, 1)], "bf 16 00 00 00 00 00 00"),
        ([code.add(3, 8)], "07 03 00 00 08 00 00 00"),
        ([code.add_register(7, 0)], "0f 07 00 00 00 00 00 00"),
        ([code.bitwise_and(0, 1)], "57 00 00 00 01 00 00 00"),
        ([code.shift_left(0, 9)], "67 00 00 00 09 00 00 00"),
        ([code.load(1, 6, 16)], "79 61 10 00 00 00 00 00"),
        ([code.store(7, 8, 0)], "7b 07 08 00 00 00 00 00"),
        ([code.store_constant(7, 8, 3)], "7a 07 08 00 03 00 00 00"),
        ([code.fetch_add(1, 0, 0)], "db 01 00 00 01 00 00 00"),
        ([code.jump_if_at_least(0, 255, 4)], "35 00 04 00 ff 00 00 00"),
        ([code.jump_if_zero(1, 1)], "15 01 01 00 00 00 00 00"),
        ([code.jump_if_not(8, 0, 1)], "55 08 01 00 00 00 00 00"),
        ([code.call_helper(183)], "85 00 00 00 b7 00 00 00"),
        ([code.call_kfunc(100, 1)], "85 20 01 00 64 00 00 00"),
        ([code.exit_program()], "95 00 00 00 00 00 00 00"),
    ],
)
def test_encoding(instruction: list[code.BpfInstruction], text: str) -> None:
    """Instructions have the bytes of the kernel's instruction set document."""
    assert bytes.fromhex(text) == code.encode(instruction)


def opcodes(program: RecorderProgram) -> list[tuple[int, int, int, int]]:
    """Opcode, registers, offset and immediate of each instruction."""
    return list(struct.iter_unpack("<BBhi", assemble(program, BINDINGS)))


def test_a_full_map_skips_the_body() -> None:
    """The bounds check jumps to the last two instructions, which return what the program returns."""
    program = opcodes(RecorderProgram(3, "fmod_ret", (0, 1), 1, returns=-5, nested=1))
    at = next(index for index, (opcode, *_) in enumerate(program) if opcode == 0x35)

    assert len(program) - 2 == at + 1 + program[at][2]
    assert [(0xB7, 0, 0, -5), (EXIT, 0, 0, 0)] == program[-2:]


@pytest.mark.parametrize(
    ("kind", "places"),
    [("fentry", [0, 8]), ("fexit", [0, 8, 16]), ("fsession", [0, 8, 16]), ("fmod_ret", [0, 8])],
)
def test_context_loads(kind: str, places: list[int]) -> None:
    """Slots are loaded, and the return's word by the kinds that may."""
    found = opcodes(RecorderProgram(0, kind, (0, 1, 2), 2))

    assert places == [offset for opcode, registers, offset, _ in found if opcode == LOAD and registers >> 4 == 6]


def test_multi_loads_no_context() -> None:
    """A program of several functions asks helpers only, for up to twelve slots and one more."""
    found = opcodes(RecorderProgram(0, "fexit"))

    assert not [registers for opcode, registers, *_ in found if opcode == LOAD and registers >> 4 == 6]
    assert 13 == found.count((CALL, 0, 0, 183))


def test_func_ip_only_when_asked() -> None:
    """bpf_get_func_ip changes the image, so a program calls it only if it is asked to."""
    called = [
        (CALL, 0, 0, 173) in opcodes(RecorderProgram(0, "fentry", (), 0, func_ip=asked)) for asked in (False, True)
    ]

    assert [False, True] == called


def test_kfuncs() -> None:
    """Sessions call vmlinux's functions, and nested calls go through the BTF that is entry 1 of fd_array."""
    found = opcodes(RecorderProgram(0, "fsession", (), 0, nested=2))
    calls = [(offset, number) for opcode, registers, offset, number in found if opcode == CALL and registers == 0x20]

    assert [(0, 100), (0, 101), (1, 102)] == calls


def record(**words: int) -> bytes:
    """A record: wN is its N-th word, cN the context's, eN and vN answer and value of the N-th argument."""
    starts = {"w": (0, 1), "c": (CONTEXT, 1), "e": (ARGUMENTS, 2), "v": (ARGUMENTS + 1, 2)}
    found = [0] * WORDS
    for key, value in words.items():
        start, step = starts[key[0]]
        found[start + step * int(key[1:])] = value
    return struct.pack(f"<{WORDS}Q", *found).ljust(RECORD_BYTES, b"\xff")


def test_record_of_fexit() -> None:
    """Words are read at their widths, errnos by their names, and what cannot be loaded is taken from the helpers."""
    program = RecorderProgram(4, "fexit", (0, 3), 3, func_ip=True)
    prototype = Prototype((Type("char", "INT", 1), PAIR), INT_TYPE)
    data = record(
        w0=99, w1=4, w3=0xFFFF, w4=3, w5=7, w8=0xF_FFFF_FFFF, c0=0x1FF, c3=0x2_0000_0005,
        v0=0x1FF, v1=11, v2=12, e3=EINVAL,
    )  # fmt: skip
    (found,) = decode(data)
    run = found.run(program, "p", prototype, {0xFFFF: "f"}.__getitem__, {})

    assert (99, 4) == (found.time, found.number)
    assert (0xFF, 11, 12, 5) == run.context
    assert (0xFF, 11, 12, "EINVAL") == run.args
    assert ("f", 3, 7, 0xFFFFFFFF, None) == (run.func_ip, run.arg_cnt, run.cookie, run.ret, run.session)


def test_record_of_fentry() -> None:
    """bpf_get_func_ret is refused to fentry programs, and func_ip is not recorded unless it was asked for."""
    (found,) = decode(record(w4=1, w7=EOPNOTSUPP, v0=5, e1=EINVAL))
    run = found.run(RecorderProgram(0, "fentry", (), 1), "p", Prototype((LONG,), VOID), hex, {})

    assert ((5,), (5, "EINVAL"), "EOPNOTSUPP", None) == (run.context, run.args, run.ret, run.func_ip)


@pytest.mark.parametrize(("held", "session"), [(0, ""), (3, "p2"), (77, "0x4d")])
def test_record_of_a_session(held: int, session: str) -> None:
    """The session cookie is the number of a program plus one, or nothing."""
    (found,) = decode(record(w2=1, w6=held, e0=EINVAL))
    run = found.run(RecorderProgram(0, "fsession", (), 0), "p", Prototype((), VOID), hex, {2: "p2"})

    assert (True, session) == (run.is_return, run.session)


def test_records_in_order() -> None:
    """Records are read one after the other, and half a record is none."""
    data = record(w1=1) + record(w1=2)

    assert [1, 2] == [one.number for one in decode(data + data[:100])]


def entry(batch: Batch) -> tuple[int, Struct]:
    """Command and attribute of a batch's only entry."""
    _, command, attribute, size = (0, *batch._entries[0].arguments)
    assert isinstance(command, int)
    assert isinstance(attribute, Struct)
    assert size == len(attribute.data)
    return command, attribute


def word(attribute: Struct, at: int) -> int:
    return struct.unpack_from("<I", attribute.data, at)[0]


def test_program_load_attribute() -> None:
    """A sleepable program for a module's function names its BTF, its type and where its kfuncs are."""
    batch = Batch()
    program = RecorderProgram(9, "fexit", (), 0, sleepable=True)
    load(batch, program, BINDINGS, btf_id=33, btf_fd=4, nested_btf=5)
    command, attribute = entry(batch)

    assert (5, 26, 16, 25, 33, 4) == (command, *(word(attribute, at) for at in (0, 44, 68, 108, 112)))
    assert len(assemble(program, BINDINGS)) == code.BYTES * word(attribute, 4)
    assert b"m9" == attribute.data[48:64].rstrip(b"\0")
    assert bytes([0, 0, 0, 0, 5, 0, 0, 0]) == attribute.pointers[120].data


def test_link_of_an_earlier_entry() -> None:
    """The program's descriptor may be the result of the load in the same batch."""
    batch = Batch()
    commands.open_link(batch, batch.syscall("getpid") and 0)
    commands.create_link(batch, Ref(0), 24, -1)

    assert {0: Ref(0)} == batch._entries[2].arguments[1].refs
    assert b"\xff" * 8 == batch._entries[2].arguments[1].data[24:32]


def test_multi_link_attribute() -> None:
    """Ids and cookies are arrays of equal length, without cookies the second pointer is null."""
    batch = Batch()
    commands.create_multi_link(batch, 3, 59, [7, 5], [1, 2])
    _, attribute = entry(batch)

    assert (2, struct.pack("<2I", 7, 5), struct.pack("<2Q", 1, 2)) == (
        word(attribute, 32),
        attribute.pointers[16],
        attribute.pointers[24],
    )


def test_jit_charge_is_given_back() -> None:
    """The limit and the capabilities are what they were behind the call that is refused."""
    batch = Batch()
    index = commands.without_jit_charge(batch, lambda batch: commands.close(batch, 8), b"264241152")
    names = [one.syscall for one in batch._entries]
    effective = [struct.unpack("<6I", batch._entries[at].arguments[1])[::3] for at in (1, 3)]

    assert 2 == index
    assert ["", "capset", "close", "capset", ""] == names
    assert [(0xFFFFFFFF & ~(1 << 21), 0xFFFFFFFF & ~(1 << 7)), (0xFFFFFFFF, 0xFFFFFFFF)] == effective
    assert [b"1", b"264241152"] == [batch._entries[at].arguments[1] for at in (0, 4)]


def test_errno_names() -> None:
    """Names are the kernel's: EOPNOTSUPP and not ENOTSUP, and its own ENOTSUPP."""
    assert ["EINVAL", "EAGAIN", "EOPNOTSUPP", "ENOTSUPP", "E4000"] == [
        errno_name(-number) for number in (22, 11, 95, 524, 4000)
    ]


class Answering:
    """A guest that answers each batch by the next of these values, with no records."""

    def __init__(self, *answers: tuple[int, ...]) -> None:
        self.answers = list(answers)

    def submit(self, _: Batch) -> tuple[Reply, ...]:
        """The next answers."""
        return tuple(Reply(value, 0, (bytes(64),)) for value in self.answers.pop(0))


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (((-12, 1 << 40, 9),), "the kernel does not make an array map: ENOMEM"),
        (((3, -22, 9),), "the kernel does not map an array into memory: EINVAL"),
        (((3, 1 << 40, 9), (-38, -38)), "the kernel does not carry out process_vm_writev: ENOSYS"),
        (((3, 1 << 40, 9), (8, -38)), "the kernel does not carry out process_vm_readv: ENOSYS"),
    ],
)
def test_a_record_map_that_cannot_be_used_is_told(answers: tuple[tuple[int, ...], ...], sentence: str) -> None:
    """At once: otherwise it would seem that programs did not run."""
    with pytest.raises(BadInputError, match=sentence):
        RecordMap.create(cast("Guest", Answering(*answers)))


def test_records_that_cannot_be_read_are_told() -> None:
    """Every reply of the guest is looked at."""
    guest = cast("Guest", Answering((3, 1 << 40, 9), (8, 8)))
    found = RecordMap.create(guest)

    assert 0 == found.recording(guest, Reply(8, 0, (bytes(64),))).runs
    with pytest.raises(BadInputError, match="the kernel does not read what programs recorded: EFAULT"):
        found.recording(guest, Reply(-14, 0, (bytes(64),)))
