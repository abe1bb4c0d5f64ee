"""Observing a kernel: its symbols, what is at ftrace's sites, and how its tracers are driven."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from impl.linux.architectures import SiteCode
from impl.linux.architectures.x86_64 import X86_64
from impl.linux.directory import Directory
from impl.linux.guest.batch import Batch, Reply
from impl.linux.probes import tracefs
from impl.linux.probes.enabled import (
    EnabledFunction,
    OpsTrampoline,
    Pointer,
    direct_functions,
    parse_enabled_functions,
    require_sense,
    site_of,
)
from impl.linux.probes.symbols import Place, Table, module_sections, module_table, parse_kallsyms
from impl.linux.probes.tracefs import GraphTracer, Limits
from spec.errors import BadInputError
from spec.sites import Site
from spec.worlds import synthetic

KALLSYMS = b"""\
0000000000000000 A fixed_percpu_data
0000000000001000 A cpu_debug_store
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000100 t twice
ffffffff81000200 t twice
ffffffff82000000 B _end
ffffffffc0008000 t bar1\t[mod1]
ffffffffc0008010 t bar2\t[mod1]
ffffffffc0009000 t bpf_prog_0123456789abcdef_p1\t[bpf]
"""


def test_kallsyms_addresses() -> None:
    """A name has all its addresses, in the kernel proper or in one module."""
    symbols = parse_kallsyms(KALLSYMS)

    assert [0xFFFFFFFF81000100, 0xFFFFFFFF81000200] == symbols.addresses("twice")
    assert 0xFFFFFFFFC0008010 == symbols.address("bar2", "mod1")
    assert () == symbols.addresses("bar2")
    with pytest.raises(BadInputError, match="the kernel has 2 symbols twice, one is needed"):
        symbols.address("twice")
    with pytest.raises(BadInputError, match="module mod2 has no symbols bar1, one is needed"):
        symbols.address("bar1", "mod2")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (0xFFFFFFFF81000000, "_stext"),
        (0xFFFFFFFF81000109, "twice+0x9"),
        (0xFFFFFFFFC0008014, "bar2+0x4"),
        (0xFFFFFFFFC0009000, "bpf_prog_0123456789abcdef_p1"),
        (0xFFFF888006072000, "None"),
        (0xFFFFFFFFC0200000, "None"),
        (0x1008, "None"),
    ],
)
def test_kallsyms_places(address: int, expected: str) -> None:
    """An address is the nearest symbol before it and a distance; data, and offsets of per-CPU symbols, are not."""
    assert expected == str(parse_kallsyms(KALLSYMS).at(address))


def test_kallsyms_modules_come_and_go() -> None:
    """A module's symbols are exchanged without those of the kernel."""
    before = parse_kallsyms(KALLSYMS)
    after = before.with_module("mod1", Table([0xFFFFFFFFC0100000], ["bar1"]))

    assert Place("bar1", 5, "mod1") == after.at(0xFFFFFFFFC0100005)
    assert None is after.without_module("mod1").at(0xFFFFFFFFC0100005)
    assert before.kernel is after.kernel


@pytest.mark.parametrize("text", [b"ffffffff81000000 T\n", b"zz T _text\n", b"0 T a\n0 t b\t[m] c\n"])
def test_kallsyms_malformed(text: bytes) -> None:
    """A malformed line is bad input."""
    with pytest.raises(BadInputError, match="kallsyms: "):
        parse_kallsyms(text)


def elf() -> bytes:
    """A relocatable file: f at .text+16, an init function, a debug symbol, an undefined and an absolute one."""
    names = b"\0.text\0.init.text\0.comment\0.symtab\0.strtab\0"
    strings = b"\0f\0start\0note\0wanted\0fixed\0"
    symbols = [(0, 0, 0, 0), (1, 1, 16, 2), (3, 2, 0, 2), (9, 3, 0, 1), (14, 0, 0, 0), (21, 0xFFF1, 7, 0)]
    table = b"".join(struct.pack("<IBBHQQ", name, kind, 0, at, value, 0) for name, at, value, kind in symbols)
    contents = [b"", bytes(32), bytes(8), b"gcc", table, strings + names]
    offsets = [64 + sum(map(len, contents[:index])) for index in range(len(contents))]
    kinds = [(0, 0, 0, 0), (1, 1, 6, 0), (7, 1, 6, 0), (18, 1, 0, 0), (27, 2, 0, 5), (35, 3, 0, 0)]
    headers = b"".join(
        struct.pack("<IIQQQQIIQQ", len(strings) + name, kind, flags, 0, at, len(content), link, 0, 0, 24 * (kind == 2))
        for (name, kind, flags, link), at, content in zip(kinds, offsets, contents, strict=True)
    )
    start = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 6, 5)
    body = b"".join(contents)
    return start[:40] + struct.pack("<Q", 64 + len(body)) + start[48:] + body + headers


def test_module_symbols_from_its_file() -> None:
    """A module's symbols are those of its .ko, moved to its sections; without what init leaves behind."""
    assert (".text",) == module_sections(elf())
    assert {"f": [0xFFFFFFFFC0000010]} == module_table(elf(), {".text": 0xFFFFFFFFC0000000}).by_name
    assert {} == module_table(elf(), {}).by_name
    with pytest.raises(BadInputError, match="a module is no ELF file"):
        module_sections(b"#!/bin/sh".ljust(64))


REGS_6_1 = Pointer("ftrace_regs_caller", 0, 0x58)
LIST = Pointer("arch_ftrace_ops_list_func", 0, 0x1D0)
GRAPH = Pointer("ftrace_graph_func", 0, 0x10)


ENABLED_6_1 = (
    "bpf_fentry_test2 (1) R   D\ttramp: ftrace_regs_caller+0x0/0x58 (call_direct_funcs+0x0/0x30)\n"
    "\tdirect-->bpf_trampoline_6442503628+0x0/0x1000\n"
)
ENABLED_6_12 = (
    "bpf_fentry_test2 (1) R   D   M \ttramp: ftrace_regs_caller+0x0/0x65 (call_direct_funcs+0x0/0x20)\n"
    "\tdirect-->bpf_trampoline_6442552602+0x0/0x12b\n"
)
ENABLED_7_3 = (
    "foo2 [massattach] (2) R I D   M  ->arch_ftrace_ops_list_func+0x0/0x1d0\n"
    "\tdirect(jmp)-->massattach_stub1+0x0/0x10 [massattach]\n"
)
GRAPH_7_3 = (
    "f (1)      \ttramp: 0xffffffffc020e000 (ftrace_graph_func+0x0/0x10) ->ftrace_graph_func+0x0/0x10"
    "\tsubops: {ent:trace_graph_entry+0x0/0x10 ret:trace_graph_return+0x0/0x130}\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ENABLED_6_1,
            EnabledFunction(
                "bpf_fentry_test2",
                None,
                1,
                regs=True,
                ipmodify=False,
                direct=True,
                trampoline=OpsTrampoline(REGS_6_1, Pointer("call_direct_funcs", 0, 0x30), None),
                entry=Pointer("bpf_trampoline_6442503628", 0, 0x1000),
            ),
        ),
        (
            ENABLED_6_12,
            EnabledFunction(
                "bpf_fentry_test2",
                None,
                1,
                regs=True,
                ipmodify=False,
                direct=True,
                modified=True,
                trampoline=OpsTrampoline(
                    Pointer("ftrace_regs_caller", 0, 0x65), Pointer("call_direct_funcs", 0, 0x20), None
                ),
                entry=Pointer("bpf_trampoline_6442552602", 0, 0x12B),
            ),
        ),
        (
            ENABLED_7_3,
            EnabledFunction(
                "foo2",
                "massattach",
                2,
                regs=True,
                ipmodify=True,
                direct=True,
                modified=True,
                calls=LIST,
                entry=Pointer("massattach_stub1", 0, 0x10, "massattach"),
                jmp=True,
            ),
        ),
        (
            "bpf_fentry_test2 (2)       ->arch_ftrace_ops_list_func+0x0/0x1d0\n",
            EnabledFunction("bpf_fentry_test2", None, 2, regs=False, ipmodify=False, direct=False, calls=LIST),
        ),
        (
            GRAPH_7_3,
            EnabledFunction(
                "f",
                None,
                1,
                regs=False,
                ipmodify=False,
                direct=False,
                trampoline=OpsTrampoline(Pointer(None, address=0xFFFFFFFFC020E000), GRAPH, GRAPH),
            ),
        ),
    ],
)
def test_enabled_functions(text: str, expected: EnabledFunction) -> None:
    """The lines of 6.1, 6.12 and 7.3, also of functions and trampolines in modules."""
    assert (expected,) == parse_enabled_functions(text)


def test_enabled_functions_in_order() -> None:
    """The functions stay in the kernel's order; records of overridden weak functions are not among them."""
    text = "b (2)       ->f+0x0/0x1\na (2)       ->f+0x0/0x1\n__ftrace_invalid_address___284\n"

    assert ["b", "a"] == [function.symbol for function in parse_enabled_functions(text)]


@pytest.mark.parametrize("line", ["f", "f (x)", "f (1) R   D\n\tdirect-->", "\tdirect-->f+0x0/0x1"])
def test_enabled_functions_malformed(line: str) -> None:
    """A line of an unknown form is bad input, with the line."""
    with pytest.raises(BadInputError, match="enabled_functions: cannot read the line"):
        parse_enabled_functions(line)


def test_a_site_has_one_trampoline() -> None:
    """Only a site with one ops has a trampoline of that; another one behind it cannot be."""
    with pytest.raises(BadInputError, match="a site with a trampoline of one ops has several"):
        parse_enabled_functions(f"{OWN} ->g+0x0/0x20\ttramp: 0xffffffffc020f000 (h+0x0/0x20) ->h+0x0/0x20")


OWN = "f (1)  \ttramp: 0xffffffffc020e000 (g+0x0/0x20)"
SHARED = "f (2)  ->arch_ftrace_ops_list_func+0x0/0x1d0"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (f"{OWN} ->g+0x0/0x20", ""),
        (f"{OWN} ->ftrace_ops_assist_func+0x0/0x20", ""),
        ("f (1)  ->g+0x0/0x20", ""),
        (ENABLED_6_12, ""),
        (ENABLED_7_3, ""),
        (OWN, "what the trampoline of f calls cannot be so"),
        (f"{OWN} ->h+0x0/0x20", "what the trampoline of f calls cannot be so"),
        ("f (2)  ->g+0x0/0x20", "what the trampoline of f calls cannot be so"),
        ("f (1)  ->ftrace_stub+0x0/0x20", "what the trampoline of f calls cannot be so"),
        ("f (1)  \ttramp: g+0x0/0x20 (h+0x0/0x20) ->h+0x0/0x20", "what the trampoline of f calls cannot be so"),
        (f"{SHARED}\n\tdirect-->0xffffffffc020f000", "what f goes to directly has no name in kallsyms"),
    ],
)
def test_what_enabled_functions_cannot_say(text: str, mistake: str) -> None:
    """A trampoline calls another one's func, or none where one is called; an image has no name."""
    functions = parse_enabled_functions(text)
    if not mistake:
        require_sense(functions)
        return
    with pytest.raises(BadInputError, match=mistake):
        require_sense(functions)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0f1f440000c3ccccccc3", SiteCode(0xFFFFFFFF81000000, "nop", None)),
        ("f30f1efa0f1f440000c3", SiteCode(0xFFFFFFFF81000004, "nop", None)),
        ("e8fbffff0048c7c000cc", SiteCode(0xFFFFFFFF81000000, "call", 0xFFFFFFFF82000000)),
        ("660f1f00e8f7ffffff90", SiteCode(0xFFFFFFFF81000004, "call", 0xFFFFFFFF81000000)),
        ("0f1f40d6e9f7fffffffe", SiteCode(0xFFFFFFFF81000004, "jmp", 0xFFFFFFFF81000000)),
    ],
)
def test_site_bytes(code: str, expected: SiteCode) -> None:
    """A site is the symbol's first instruction, or the one behind an endbr64, in each form that kernels give that."""
    assert expected == X86_64.decode_site(0xFFFFFFFF81000000, bytes.fromhex(code))


@pytest.mark.parametrize("code", ["cc1f440000c3ccccccc3", "554889e5", "f30f1efae8"])
def test_site_bytes_unknown(code: str) -> None:
    """A site that is just being patched, and what is no site, is bad input."""
    with pytest.raises(BadInputError, match="no ftrace site at 0xffffffff8100000[04]: its bytes are"):
        X86_64.decode_site(0xFFFFFFFF81000000, bytes.fromhex(code))


def test_site_of() -> None:
    """Lines tell who covers a site, bytes what it calls, and the caller how addresses are spelled."""
    spelled = {0x10: "ftrace_regs_caller", 0x20: "trampoline:fentry:p1"}
    (function,) = parse_enabled_functions(
        "foo2 (2) R   D ->arch_ftrace_ops_list_func+0x0/0x1d0\n\tdirect-->bpf_trampoline_1+0x0/0x1000\n"
    )

    expected = Site(2, True, False, True, "ftrace_regs_caller", "trampoline:fentry:p1")
    assert expected == site_of(function, SiteCode(0, "call", 0x10), 0x20, spelled.__getitem__)
    assert "nop" == site_of(function, SiteCode(0, "nop", None), None, spelled.__getitem__).target


def test_direct_functions() -> None:
    """The table of direct entries is read bucket by bucket, and along chains."""
    memory = {
        (0x10, 8): struct.pack("<Q", 0x1000),
        (0x1000, 16): struct.pack("<QQ", 1, 0x2000),
        (0x2000, 16): struct.pack("<QQ", 0, 0x3000),
        (0x3000, 32): struct.pack("<QQQQ", 0x3100, 0x2008, 0x81000000, 0xC0000000),
        (0x3100, 32): struct.pack("<QQQQ", 0, 0x3000, 0x81000104, 0xC0001001),
    }

    found = direct_functions(lambda places: [memory[place] for place in places], 0x10)
    assert {0x81000000: 0xC0000000, 0x81000104: 0xC0001001} == found


def test_direct_functions_empty() -> None:
    """The kernel's empty table has no buckets."""
    memory = {(0x10, 8): struct.pack("<Q", 0x1000), (0x1000, 16): bytes(16)}

    assert {} == direct_functions(lambda places: [memory[place] for place in places], 0x10)


def answering(*values: int) -> tuple[list[Batch], tracefs.Submit]:
    """Batches that came, and one who gives all entries of each the same value."""
    came: list[Batch] = []

    def submit(batch: Batch) -> tuple[Reply, ...]:
        came.append(batch)
        return tuple(Reply(values[len(came) - 1], 0, ()) for _ in range(len(batch)))

    return came, submit


def test_graph_tracer_refused_filter() -> None:
    """A user whose filter is refused is not started, since it would trace every function."""
    came, submit = answering(-22)
    tracer = GraphTracer(submit, 2)

    assert -22 == tracer.register("u", ["nothing"], Limits())
    assert 1 == len(came)
    assert {} == tracer.users


def test_graph_tracer_users() -> None:
    """Each user has a tracer; one that has gone leaves it to the next; after a restore nobody is there."""
    _, submit = answering(0, 0, 0, 0, 0, 0, 0)
    tracer = GraphTracer(submit, 2)
    tracer.register("a", ["1"], Limits())
    tracer.register("b", ["1"], Limits())
    both = dict(tracer.users)
    tracer.unregister("a")
    tracer.register("c", ["1"], Limits())

    assert both["a"] == tracer.users["c"]
    assert ["b", "c"] == list(tracer.users)
    tracer.forget()
    assert {} == tracer.users


def test_graph_tracer_obstacles() -> None:
    """What tracefs cannot do is told before it is tried."""
    _, submit = answering(0, 0)
    tracer = GraphTracer(submit, 0)

    assert None is tracer.obstacle([], Limits())
    assert None is tracer.obstacle(["1"], Limits(depth=2))
    tracer.register("a", ["1"], Limits())
    assert "every tracer that tracefs has is in use" == tracer.obstacle(["1"], Limits())


def test_graph_tracer_without_a_filter() -> None:
    """A user without a filter has a notrace hash for what is not of the world, and therefore stands alone."""
    came, submit = answering(*[0] * 9)
    tracer = GraphTracer(submit, 3)
    tracer.register("a", [], Limits(), beside=["*:mod:!massattach"])

    assert b"*:mod:!massattach " in came[1].encode(X86_64.syscalls)
    assert tracer.is_unfiltered("a")
    assert "a user without a filter is alone" in (tracer.obstacle(["1"], Limits()) or "")
    tracer.unregister("a")
    assert not tracer.is_unfiltered("a")
    assert 5 == len(came)
    tracer.register("b", ["1"], Limits(), beside=["*:mod:!massattach"])
    assert not tracer.is_unfiltered("b")
    assert "a user without a filter is alone" in (tracer.obstacle([], Limits()) or "")


def test_what_is_not_of_the_world() -> None:
    """Lines take the world's loaded modules out, and the functions of the kernel that have a site."""
    small = synthetic()
    other = replace(small.by_name["foo2"], name="early", attributes=frozenset({"unrecorded"}))
    world = replace(small, others=(other,))
    station = SimpleNamespace(world=world, own=frozenset({"foo1", "early"}))
    lines = Directory.beside_the_world(cast("Any", SimpleNamespace(station=station)), ["mod2", "mod1"])

    assert ("*:mod:!massattach", "!*:mod:mod1", "!*:mod:mod2", "!foo1") == lines


def test_graph_tracer_without_a_filter_that_fails() -> None:
    """What was written so that the user does not trace everything is taken back, if it does not come."""
    came, submit = answering(0, 0, -12, 0)
    tracer = GraphTracer(submit, 3)

    assert -12 == tracer.register("a", [], Limits(), beside=["*:mod:!massattach"])
    assert 4 == len(came)
    assert {} == tracer.users


def test_a_filter_file() -> None:
    """Functions with their modules, and the lines that wait; a comment where there is no function."""
    shown = "foo1 [massattach]\nvfs_read\nbar*:mod:mod2\n:mod:mod1\nbar1:mod:\n"
    lines = ("bar*:mod:mod2", ":mod:mod1", "bar1:mod:")

    assert ((("foo1", "massattach"), ("vfs_read", None)), lines) == tracefs.parse_hash(shown)
    assert ((), ()) == tracefs.parse_hash("#### all functions enabled ####\n")
    with pytest.raises(BadInputError, match="a filter file: cannot read the line 'foo1 of mod1'"):
        tracefs.parse_hash("foo1\nfoo1 of mod1\n")


def test_graph_tracer_limits_are_shared() -> None:
    """Users beside each other have the same limits."""
    _, submit = answering(0, 0)
    tracer = GraphTracer(submit, 2)
    tracer.register("a", ["1"], Limits())

    assert "are the same for all users" in str(tracer.obstacle(["1"], Limits(depth=1)))
    assert None is tracer.obstacle(["1"], Limits())
