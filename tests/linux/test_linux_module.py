"""Our kernel modules, without a kernel: the C text of a world's functions, commands, calls and the log."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from impl.linux.architectures.x86_64 import X86_64
from impl.linux.guest.packages import Kernel
from impl.linux.laboratory import build, control
from impl.linux.laboratory.build import Modules
from impl.linux.laboratory.control import (
    BeginRecord,
    BodyRecord,
    Command,
    DirectRecord,
    Log,
    Numbers,
    OpsCallRecord,
    RecordKind,
    ValueRecord,
)
from impl.linux.laboratory.sources import fmodret_functions, functions_of, functions_text, module_text
from spec import operations as op
from spec.errors import BadInputError
from spec.prototypes import Prototype, Type
from spec.worlds import BOOL, CHAR, INT, LONG, PAIR, SHORT, Callee, Function, World, synthetic

SOURCES = Path(build.__file__).parent / "module"
VOID = Type("void", "VOID", 0)


def world_of(*functions: Function) -> World:
    return World("w", functions)


def function(name: str, *arguments: Type, returns: Type = LONG, **more: object) -> Function:
    return replace(Function(name, Prototype(arguments, returns), None), **more)  # type: ignore[arg-type]


def definition(text: str, name: str) -> list[str]:
    """The lines of a function's body."""
    body = re.search(rf"\n[^\n]* \*?{name}\([^;\n]*\)\n{{\n(.*?)\n}}", text, re.DOTALL)
    assert body is not None
    return [line.strip() for line in body[1].splitlines()]


# the functions' text


def test_a_body_records_its_slots_and_adds_up_its_members() -> None:
    """Each slot at its width, a struct by its words; the sum takes scalars with their sign (TRACE-2)."""
    text = functions_text(world_of(function("f", LONG, PAIR, CHAR, BOOL)), None)

    assert [
        "u64 w[5] = { (u64)a0, 0, 0, (u8)a2, (u8)a3 }, total = 0;",
        "",
        "__builtin_memcpy(&w[1], &a1, 16);",
        "massattach_body(0, false, 5, w);",
        "total += (u64)a0;",
        "total += w[1];",
        "total += w[2];",
        "total += (u64)a2;",
        "total += (u64)a3;",
        "return (long)total;",
    ] == definition(text, "f")
    assert "TRACEABLE long f(long a0, struct massattach_struct16 a1, signed char a2, bool a3)" in text


def test_the_patched_twin_adds_1000_and_is_not_traced() -> None:
    """NAME__patched does as NAME does, says so, and returns 1000 more (TRACE-5)."""
    text = functions_text(world_of(function("f", INT, returns=VOID)), None)

    plain, patched = definition(text, "f"), definition(text, "f__patched")
    changed = [(a, b) for a, b in zip(plain, patched, strict=True) if a != b]
    assert [
        ("u64 w[1] = { (u32)a0 }, total = 0;", "u64 w[1] = { (u32)a0 }, total = 1000;"),
        ("massattach_body(0, false, 1, w);", "massattach_body(0, true, 1, w);"),
    ] == changed
    assert "UNTRACED void f__patched(int a0)" in text
    assert "#define UNTRACED notrace " in text


def test_callees_are_called_in_their_order() -> None:
    """One statement a call, since C leaves the order of a sum's terms open, between records (TRACE-4)."""
    first, second = definition(functions_text(synthetic(), None), "outer")[3:5]

    assert (
        "total += ({ u64 c[1] = { w[0] }; (void)c; massattach_begin(foo1); "
        "massattach_end(({ (u64)foo1((long)c[0]); })); });"
    ) == first
    assert (
        "total += ({ u64 c[2] = { w[0], 1ull }; (void)c; massattach_begin(foo2); "
        "massattach_end(({ (u64)foo2((long)c[0], (long)c[1]); })); });"
    ) == second


def test_callees_of_every_shape() -> None:
    """A struct is passed by its words, a call of a void function is worth 0, a constant is a 64-bit word."""
    inner = function("inner", PAIR, SHORT, returns=VOID)
    caller = function("caller", callees=(Callee("inner", (("value", -1), ("value", 0), ("value", 2))),))
    line = definition(functions_text(world_of(inner, caller), None), "caller")[3]

    assert (
        "total += ({ u64 c[3] = { 18446744073709551615ull, 0ull, 2ull }; (void)c; massattach_begin(inner); "
        "massattach_end(({ inner(*(struct massattach_struct16 *)&c[0], (short)c[2]); 0ull; })); });"
    ) == line


def test_a_module_holds_its_own_functions_in_order() -> None:
    """Numbers are places in the world, and functions that the kernel has itself get no text."""
    world = world_of(function("own"), function("f"), function("g", module="m"), function("h"))
    text = functions_text(world, None, frozenset({"own"}))

    assert ["f", "h"] == [f.name for f in functions_of(world, None, frozenset({"own"}))]
    assert ["f", "f__patched", "h", "h__patched"] == re.findall(
        r"^(?:TRACEABLE|UNTRACED) long (\w+)", text, re.MULTILINE
    )
    assert ["1", "1", "3", "3"] == re.findall(r"massattach_body\((\d+)", text)
    assert "massattach_body(2, false, 0, w);" in module_text(world, "m")


def test_fmodret_sets_hold_what_attributes_say() -> None:
    """A function with `fmod_ret` is a member, for sleepable programs too if it is `sleepable`; others are not."""
    attributes = ({"fmod_ret", "sleepable"}, {"fmod_ret"}, {"sleepable"}, set[str]())
    marked = tuple(function(f"f{n}", attributes=frozenset(words)) for n, words in enumerate(attributes))

    assert (("f0", True), ("f1", False)) == fmodret_functions(marked)
    assert ".cnt = 2,\n\t.pairs = { { 0, KF_SLEEPABLE }, { 0, 0 } }," in functions_text(World("w", marked), None)
    assert "btf_id_set8" not in functions_text(World("w", marked[2:]), None)


@pytest.mark.parametrize(
    ("refused", "mistake"),
    [
        (function("f.isra.0"), "the function f.isra.0 cannot be compiled into a module: its name is no C identifier"),
        (function("f", callees=(Callee("g", ()),)), "the function f calls g, which is not in its module"),
        (
            function("f", Type("struct large", "STRUCT", 24)),
            "no module can hold a function with a struct large, a STRUCT of 24 bytes",
        ),
        (function("f", Type("double", "FLOAT", 8)), "no module can hold a function with a double, a FLOAT of 8 bytes"),
    ],
)
def test_what_cannot_be_said_in_c_is_refused(refused: Function, mistake: str) -> None:
    """One sentence that names the function or the type."""
    with pytest.raises(BadInputError, match=re.escape(mistake)):
        functions_text(world_of(refused), None)


def test_a_function_has_the_name_of_its_symbol() -> None:
    """One without a site is not traced; two modules may have functions of one name, and one module may not."""
    theirs = replace(function("f@2"), module="m")
    world = World("w", (function("f"), function("g", attributes=frozenset({"disabled"})), theirs))

    assert re.findall(r"^(TRACEABLE|UNTRACED) long (\w+)\(", functions_text(world, None), re.MULTILINE) == [
        ("TRACEABLE", "f"),
        ("UNTRACED", "f__patched"),
        ("UNTRACED", "g"),
        ("UNTRACED", "g__patched"),
    ]
    assert "\nTRACEABLE long f(" in module_text(world, "m")
    with pytest.raises(
        BadInputError, match="the function f@2 cannot be compiled into the module of another one's name"
    ):
        functions_text(World("w", (function("f"), function("f@2"))), None)


@pytest.mark.parametrize("name", ["massattach", "Mod", "mod-1", "../mod"])
def test_a_module_needs_a_name_of_its_own(name: str) -> None:
    """Names become file names and C identifiers."""
    kernel = Kernel("k", "1", Path("vmlinux"), None, None, X86_64)

    with pytest.raises(BadInputError, match=f"no module of a world can be called {re.escape(name)}"):
        build.build(kernel, world_of(function("f", module=name)))


def test_a_build_without_headers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own kernel comes without."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(BadInputError, match="no modules can be compiled for mine: its headers are not known"):
        build.build(Kernel("mine", "1", tmp_path / "vmlinux", None, None, X86_64), synthetic())


def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pahole is in the package dwarves."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "pahole" else f"/bin/{tool}")

    with pytest.raises(BadInputError, match="pahole is needed and not installed: apt-get install dwarves"):
        build.build(Kernel("k", "1", tmp_path / "vmlinux", None, tmp_path, X86_64), synthetic())


# commands and the log

NUMBERS = Numbers({"o": 7}, {"T": 3, "U": 4}, {"f": 0xF0, "g": 0x60, "f__patched": 0xFF}.__getitem__)


def decoded(command: bytes) -> tuple[Command, tuple[int, ...], str]:
    verb, count = struct.unpack_from("<II", command)
    return Command(verb), struct.unpack_from(f"<{count}Q", command, 8), command[8 + 8 * count :].decode()


@pytest.mark.parametrize(
    ("operation", "verb", "words", "text"),
    [
        (op.FtraceOps("o"), Command.OPS_DECLARE, (7, 0), ""),
        (op.FtraceOps("o", save_regs=True, permanent=True), Command.OPS_DECLARE, (7, 0b10001), ""),
        (op.FtraceOps("o", ipmodify=True, rcu=True, dynamic=True), Command.OPS_DECLARE, (7, 0b101010), ""),
        (op.FtraceSetFilterIp("o", "f", remove=True), Command.OPS_FILTER_IP, (7, 1, 0xF0), ""),
        (op.FtraceSetFilterIps("o", ("f", "g"), reset=True), Command.OPS_FILTER_IPS, (7, 2, 0xF0, 0x60), ""),
        (op.FtraceSetFilter("o", "!f*", reset=True), Command.OPS_FILTER, (7, 2), "!f*"),
        (op.FtraceSetNotrace("o", "f?"), Command.OPS_NOTRACE, (7, 0), "f?"),
        (op.FtraceFreeFilter("o"), Command.OPS_FREE, (7,), ""),
        (op.RegisterFtraceFunction("o"), Command.OPS_REGISTER, (7,), ""),
        (op.UnregisterFtraceFunction("o"), Command.OPS_UNREGISTER, (7,), ""),
        (op.RegisterFtraceDirect("f", "T"), Command.DIRECT_REGISTER, (0xF0, 3), ""),
        (op.UnregisterFtraceDirect("f", "T"), Command.DIRECT_UNREGISTER, (0xF0, 3), ""),
        (op.ModifyFtraceDirect("f", "T", "U"), Command.DIRECT_MODIFY, (0xF0, 3, 4), ""),
        (op.RegisterFtraceDirectMulti("o", "T"), Command.MULTI_REGISTER, (7, 3), ""),
        (op.UnregisterFtraceDirectMulti("o", "T", free=True), Command.MULTI_UNREGISTER, (7, 3, 1), ""),
        (op.ModifyFtraceDirectMulti("o", "U"), Command.MULTI_MODIFY, (7, 4), ""),
        (op.UpdateFtraceDirectAdd("o", (("f", "T"), ("g", "U"))), Command.HASH_ADD, (7, 0xF0, 3, 0x60, 4), ""),
        (op.UpdateFtraceDirectDel("o", (("f", "T"),)), Command.HASH_DEL, (7, 0xF0, 3), ""),
        (op.UpdateFtraceDirectMod("o", (("g", "T"),)), Command.HASH_MOD, (7, 0x60, 3), ""),
        (op.Livepatch("f"), Command.LIVEPATCH, (0xF0, 0xFF), ""),
        (op.Unlivepatch("f"), Command.UNLIVEPATCH, (0xF0,), ""),
    ],
)
def test_an_operation_becomes_a_command(
    operation: op.Operation, verb: Command, words: tuple[int, ...], text: str
) -> None:
    """A verb, numbers for names, and the glob as it is."""
    assert (verb, words, text) == decoded(control.encode(operation, NUMBERS))
    assert type(operation) in control.ENCODINGS


def test_verbs_are_places_in_the_modules_table() -> None:
    """The host's numbers are the module's."""
    table = re.findall(r"^\t{ (\w+), ", (SOURCES / "core.c").read_text(), re.MULTILINE)

    assert [verb.name.lower() for verb in Command] == [name.removeprefix("massattach_") for name in table]


def test_kinds_and_sizes_are_those_of_the_headers() -> None:
    """The host's kinds of records, slots and stubs are the module's."""
    kinds = re.findall(r"^\tMASSATTACH_([A-Z]+)(?: = 1)?,$", (SOURCES / "massattach.h").read_text(), re.MULTILINE)
    sizes = dict(re.findall(r"^#define MASSATTACH_(\w+) (\d+)$", (SOURCES / "sizes.h").read_text(), re.MULTILINE))

    assert [kind.name for kind in RecordKind] == kinds
    assert {"SLOTS": "256", "STUBS": "32", "REGISTERS": "6", "STACK": "32"} == sizes
    assert (control.OPS_SLOTS, control.STUBS, control.STACK_WORDS) == (256, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "words", "places"),
    [
        ((), (), (0, 0, 0, 0, 0, 0)),
        ((LONG,) * 8, (1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3, 4, 5, 6, 7, 8)),
        # both words of a struct or none are in registers, and what comes later may still take the sixth
        ((CHAR,) * 5 + (PAIR, CHAR), (1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3, 4, 5, 8, 6, 7)),
        ((LONG, PAIR, INT), (1, 2, 3, 4), (1, 2, 3, 4, 0, 0)),
        # an integer is extended by its sign, a bool is 0 or 1
        ((CHAR, SHORT, INT, BOOL), (0x1FF, 0x18000, 1 << 31, 256), (2**64 - 1, 2**64 - 0x8000, 2**64 - 2**31, 1, 0, 0)),
        ((Type("unsigned int", "INT", 4), Type("enum e", "ENUM", 4)), (-1, -2), (2**32 - 1, 2**32 - 2, 0, 0, 0, 0)),
        # a struct's words are its bytes, whatever lies behind them
        ((Type("struct s12", "STRUCT", 12),), (-1, -1), (2**64 - 1, 2**32 - 1, 0, 0, 0, 0)),
    ],
)
def test_a_call_puts_arguments_where_a_c_caller_does(
    arguments: tuple[Type, ...], words: tuple[int, ...], places: tuple[int, ...]
) -> None:
    """Six registers, then the words on the stack (ARG-2, ARG-3)."""
    command = control.call(0xF0, Prototype(arguments, LONG), words)

    assert (Command.CALL, (0xF0, *places), "") == decoded(command)


def test_a_call_without_a_prototype_has_six_words() -> None:
    """They are taken as they are."""
    assert (0xF0, 1, 2**64 - 1, 0, 0, 0, 0) == decoded(control.call(0xF0, None, (1, -1)))[1]
    assert (0xF0, 1, 2, 3, 4, 5, 6) == decoded(control.call(0xF0, None, (1, 2, 3, 4, 5, 6, 7)))[1]


def test_a_call_with_too_much_on_the_stack_is_refused() -> None:
    """The module copies no more than it has room for."""
    with pytest.raises(BadInputError, match="a call with 33 words on the stack cannot be made: 32 is the most"):
        control.call(0xF0, Prototype((LONG,) * 39, LONG), (0,) * 39)


def packed(*records: tuple[int, int, int, int, tuple[int, ...]], lost: int = 0) -> bytes:
    body = b"".join(
        struct.pack(f"<QHHIQ{len(words)}Q", time, kind, len(words), number, ip, *words)
        for time, kind, number, ip, words in records
    )
    return struct.pack("<QQ", len(body), lost) + body


def test_the_log_is_decoded() -> None:
    """Records of each kind in their order, and how many were lost."""
    log = packed(
        (10, 3, 7, 0xF4, ()),
        (11, 4, 2, 0xF4, ()),
        (12, 1, 5, 0, (1, 2)),
        (13, 2, 6, 0, ()),
        (14, 5, 0, 0xF0, (9,)),
        (15, 6, 0, 0x60, ()),
    )

    assert Log(
        (
            OpsCallRecord(10, 7, 0xF4),
            DirectRecord(11, 2, 0xF4),
            BodyRecord(12, 5, patched=False, words=(1, 2)),
            BodyRecord(13, 6, patched=True, words=()),
            ValueRecord(14, 0xF0, 9),
            BeginRecord(15, 0x60),
        ),
        0,
    ) == control.decode(log)
    assert Log((), 3) == control.decode(packed(lost=3))


@pytest.mark.parametrize(
    "log", [b"", packed((1, 9, 0, 0, ())), packed((1, 1, 0, 0, (1, 2)))[:-4], packed((1, 5, 0, 0, ()))]
)
def test_a_damaged_log_is_refused(log: bytes) -> None:
    """Cut short, of an unknown kind, or with too few words."""
    with pytest.raises(BadInputError, match="^/proc/massattach: the log of massattach.ko is damaged: "):
        control.decode(log)


def test_parameters_are_addresses() -> None:
    """A kernel that does not export what massattach.ko uses is asked for addresses."""
    modules = Modules(b"", {}, "1", ("a", "b"))

    assert b"a=0x10 b=0x20" == control.parameters(modules, {"a": 16, "b": 32}.__getitem__)
    assert b"" == control.parameters(replace(modules, imports=()), dict[str, int]().__getitem__)
