"""Which of the kernel's own code was executed: its blocks, QEMU's log, reasons, the table and the file."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from impl.linux.architectures import Flow
from impl.linux.architectures.x86_64 import X86_64
from impl.linux.guest.guest import Guest
from impl.linux.guest.qemu import AN_INSTRUCTION, Qemu, Setup
from impl.linux.instruments.code import Block, CodeFunction, find_code, sources
from impl.linux.probes.symbols import Symbols, Table
from properties.kernels import unreached
from properties.kernels.coverage import (
    BlockRecord,
    Coverage,
    CoverageRecord,
    KernelCoverage,
    Share,
    core_share,
    coverage_table,
    write_coverage,
)
from properties.kernels.unreached import obstacles
from properties.report.show import text_of
from spec.errors import BadInputError
from spec.reading import load

BASE = 0xFFFFFFFF81000000
MAIN, CALLEE, FENTRY, COLD = BASE + 0x1000, BASE + 0x2000, BASE + 0x2800, BASE + 0x3000
CODE = {
    # test edi, edi; je 0x1010; mov eax, -ENOMEM; ret
    MAIN: bytes.fromhex("85ff 740c b8f4ffffff c3 cccccccccccc")
    # call 0x2000; jne 0x3000; xor eax, eax; ret
    + bytes.fromhex("e8eb0f0000 0f85e51f0000 31c0 c3 cccc")
    # a weak function that another one overrides: endbr64; call __fentry__; ret
    + bytes.fromhex("f30f1efa e8d7170000 c3").ljust(16, b"\xcc"),
    FENTRY: bytes.fromhex("c3").ljust(16, b"\xcc"),
    # ud2; jmp 0x101b
    COLD: bytes.fromhex("0f0b e914e0ffff").ljust(16, b"\xcc"),
}
NAMES = {
    MAIN: "bpf_trampoline_get",
    MAIN + 0x30: "__pfx_bpf_trampoline_put",
    CALLEE: "kfree",
    FENTRY: "__fentry__",
    FENTRY + 0x10: "another",
    COLD: "bpf_trampoline_get.cold",
    COLD + 0x10: "behind",
    CALLEE + 0x10: "beside",
}


class Reading:
    """A guest with some text."""

    kernel = SimpleNamespace(architecture=X86_64)

    def __init__(self, code: dict[int, bytes]) -> None:
        self.code = code

    def read_memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The text at each address."""
        return [self.code.get(address, b"")[:length] for address, length in places]


def found(code: dict[int, bytes]) -> tuple[CodeFunction, ...]:
    names = dict(sorted(NAMES.items()))
    table = Table(list(names), list(names.values()))
    return find_code(cast("Guest", Reading(code)), Symbols(table))


def block(start: int, *behind: int, calls: str = "", errno: str = "", traps: bool = False) -> Block:
    return Block(start, start + 1, tuple(calls.split()), (errno,) if errno else (), traps, behind)


def test_the_flow_of_x86_code() -> None:
    """Targets are numbers, constants are signed by the register's width, and what is no instruction is padding."""
    text = bytes.fromhex("e800000000 7500 ffe0 c3 0f0b 0f1f00 48c7c3eaffffff b8f4ffffff 8b07 06")
    read = list(X86_64.read_flow(BASE, text))

    expected = [Flow.CALL, Flow.BRANCH, Flow.JUMP, Flow.RETURN, Flow.TRAP, Flow.PADDING, *[Flow.NEXT] * 3, Flow.PADDING]
    assert expected == [each.flow for each in read]
    assert [BASE + 5, BASE + 7, *[None] * 8] == [each.target for each in read]
    assert [-22, -12, None] == [each.constant for each in read[6:9]]
    assert len(text) == sum(each.size for each in read)


def test_a_function_is_cut_into_blocks() -> None:
    """At targets of jumps and behind jumps, with its cold part; padding is none, nor a function that was overridden."""
    function, _ = found(CODE)
    blocks = {each.start - BASE: each for each in function.blocks}

    assert ("kernel/bpf/trampoline.c", "bpf_trampoline_get", MAIN) == (function.source, function.name, function.start)
    assert [0x1000, 0x1004, 0x1010, 0x101B, 0x3000] == list(blocks)
    assert (BASE + 0x1004, BASE + 0x1010) == blocks[0x1000].behind
    assert (("ENOMEM",), ()) == (blocks[0x1004].errnos, blocks[0x1004].behind)
    assert (("kfree",), (BASE + 0x101B, COLD)) == (blocks[0x1010].calls, blocks[0x1010].behind)
    assert blocks[0x3000].traps


def test_text_that_cannot_be_read_is_told() -> None:
    """A kernel without /proc/kcore shows none."""
    with pytest.raises(BadInputError, match="build it with CONFIG_PROC_KCORE"):
        found({})


def test_the_list_of_functions() -> None:
    """Each source file has functions, sorted and without suffixes, and none is in two of them."""
    listed = [name for source in sources().values() for name in source.functions]

    assert {"kernel/bpf/trampoline.c", "kernel/trace/fgraph.c", "kernel/trace/ftrace.c"} < sources().keys()
    assert [] == [name for name in listed if "." in name]
    assert all(sorted(set(source.functions)) == list(source.functions) for source in sources().values())


def test_what_qemu_wrote_is_read_by_whole_lines(tmp_path: Path) -> None:
    """Its log of translations is read on from where it was read before; a line that is half written waits."""
    qemu = Qemu.__new__(Qemu)
    qemu.setup = cast("Setup", SimpleNamespace(directory=tmp_path))
    qemu._watched, qemu._log_read = ((0, 1),), 0
    log = tmp_path / "translated"
    log.write_text("----------------\nIN: f\n0xffffffff81001000:  85 ff   testl %edi, %edi\n0xffffffff810010")

    assert {MAIN} == qemu.executed()
    assert set() == qemu.executed()
    with log.open("a") as file:
        file.write("02:  74 0c   je 0xffffffff81001010\n")
    assert {MAIN + 2} == qemu.executed()
    assert not AN_INSTRUCTION.findall(b"IN: 0x12:")


def test_reasons_spread_along_the_flow() -> None:
    """What leads only to blocks out of reach is so, and what only they lead to; a block of the alphabet's is not."""
    function = CodeFunction(
        "f.c",
        "f",
        0,
        (
            block(0, 1, 4),
            block(1, 2),
            block(2, 3, traps=True),
            block(3),
            block(4, 5, 6),
            block(5, errno="ENOMEM"),
            block(6, calls="__ubsan_handle_out_of_bounds"),
            block(7, errno="EINVAL"),
        ),
    )

    assert {
        1: "a WARN or a BUG",
        2: "a WARN or a BUG",
        3: "a WARN or a BUG",
        4: "an allocation that fails",
        5: "an allocation that fails",
        6: "what UBSAN finds",
    } == obstacles(function, {0, 7})
    assert {5, 6} == obstacles(function, {0, 1, 2, 3, 4}).keys()
    assert 7 not in obstacles(function, set())


def test_every_named_function_is_one_that_is_looked_at() -> None:
    """A reason's pattern matches a function of the list, and its callee is none of an inlined copy's suffixes."""
    listed = {name for source in sources().values() for name in source.functions}
    patterns = [pattern for names in unreached._FUNCTIONS for pattern in names.split()]

    assert [] == [
        pattern for pattern in patterns if not any(fnmatchcase(name, pattern.partition(">")[0]) for name in listed)
    ]
    assert len(patterns) == len(set(patterns))


def test_the_file_has_every_block_and_the_runs_that_executed_it(tmp_path: Path) -> None:
    """It is written whole, and read by its types."""
    functions = found(CODE)
    coverage = Coverage(functions, {"synthetic: a": {MAIN, MAIN + 0x10}, "synthetic: b": {MAIN, MAIN + 0x1B}})
    path = tmp_path / "coverage.json"
    write_coverage({"linux-7.3": coverage.record("7.3.4")}, path)
    kernel = load(path, CoverageRecord, 1 << 20).kernels["linux-7.3"]

    assert ("7.3.4", ("synthetic: a", "synthetic: b")) == (kernel.release, kernel.runs)
    blocks = kernel.files["kernel/bpf/trampoline.c"]["bpf_trampoline_get"]
    assert [(0, (0, 1)), (4, ()), (0x10, (0,)), (0x1B, (1,)), (0x2000, ())] == [(each.at, each.runs) for each in blocks]
    assert ["", "an allocation that fails", "", "", "a WARN or a BUG"] == [each.unreached for each in blocks]
    assert [path] == list(tmp_path.iterdir())


def test_the_table_tells_what_would_reach_the_others() -> None:
    """By file and function, with the direct API by itself; a function that was executed wholly has no line."""
    run, never = BlockRecord(0, 1, (), (), (0,)), BlockRecord(1, 1, (), (), (), "LSM programs")
    missing = BlockRecord(2, 1, (), (), ())
    files = {"kernel/trace/ftrace.c": {"register_ftrace_direct": (run, never, missing), "ftrace_match": (run,)}}
    shown = text_of(coverage_table("linux-7.3", KernelCoverage("7.3.4", ("a",), files)), 160)

    assert Share(3, 1, {"LSM programs": 1}) == Share.of((run, never, missing))
    assert (2, 50.0) == (Share.of((run, never, missing)).reachable, Share.of((run, never, missing)).percent)
    assert 100.0 == Share.of((never,)).percent
    lines = [[cell.strip() for cell in line.split("│")[1:6]] for line in shown.splitlines() if "ftrace" in line]
    others = "1 by LSM programs; 1 by the alphabet"
    assert [
        ["kernel/trace/ftrace.c", "4", "2", "67 %", others],
        ["kernel/trace/ftrace.c, direct calls", "3", "1", "50 %", others],
        ["register_ftrace_direct", "3", "1", "50 %", others],
    ] == lines


def test_the_share_of_what_mass_attach_is_made_of() -> None:
    """Of ftrace.c the direct API alone counts, of other files nothing; a kernel may have none of them."""
    run, missing = BlockRecord(0, 1, (), (), (0,)), BlockRecord(1, 1, (), (), ())
    files = {
        "kernel/bpf/trampoline.c": {"bpf_trampoline_get": (run, missing)},
        "kernel/trace/ftrace.c": {"update_ftrace_direct_add": (run,), "ftrace_match": (missing,)},
        "kernel/bpf/syscall.c": {"bpf_link_init": (missing,)},
    }

    assert Share(3, 2, {}) == core_share(KernelCoverage("7.3.4", ("a",), files))
    assert Share(0, 0, {}) == core_share(KernelCoverage("7.3.4", (), {}))
