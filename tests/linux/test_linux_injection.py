"""Points that fail in a running kernel: the code that is put in place, and what it is put in place of."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import capstone  # type: ignore[import-untyped]
import pytest

from impl.linux.architectures.x86_64.code import leave_at_once
from impl.linux.declining.decliner import Decliner
from impl.linux.injection import NOTE, POINTS, SYMBOLS, Injector, place_of, reaches
from impl.linux.run import RunState
from spec.following import follow
from spec.inventory import Inventory
from spec.outcomes import Errno, Ok
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.worlds import synthetic

FUNCTION, NOTED = 0xFFFFFFFF81001000, 0xFFFFFFFFC0002000


class Memory:
    """A guest's memory; `reached` is what the kernel leaves in the note."""

    kernel = SimpleNamespace(architecture=SimpleNamespace(leave_at_once=leave_at_once))

    def __init__(self, reached: int) -> None:
        self.reached = reached
        self.written: list[tuple[int, bytes]] = []

    def read_memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """As Guest has it: the note, and nops elsewhere."""
        return [self.reached.to_bytes(size, "little") if at == NOTED else b"\x90" * size for at, size in places]

    def poke(self, address: int, data: bytes) -> None:
        """As Guest has it."""
        self.written.append((address, data))


class Addresses:
    """The symbols of a kernel and of our module."""

    def addresses(self, name: str, module: str | None = None) -> list[int]:
        """As Symbols has it."""
        return [NOTED] if module else [self.address(name)]

    def address(self, name: str) -> int:
        """As Symbols has it, of the kernel."""
        return FUNCTION + 0x1000 * SYMBOLS.index(name)


def test_the_code_notes_that_it_ran_and_returns() -> None:
    """It sets the bits of the byte at the note, and returns the value, whose sign is extended."""
    code = leave_at_once(FUNCTION, -12, NOTED, 4)
    found = [(one.mnemonic, one.op_str) for one in capstone.Cs(capstone.CS_ARCH_X86, 8).disasm(code, FUNCTION)]
    distance = NOTED - FUNCTION - 7

    assert [("or", f"byte ptr [rip + {distance:#x}], 4"), ("mov", "rax, -0xc"), ("ret", "")] == [
        (mnemonic, text.replace("0xfffffffffffffff4", "-0xc")) for mnemonic, text in found
    ]


@pytest.mark.parametrize(
    ("reached", "left"), [(0, {"alloc", "patch"}), (1 << sorted(POINTS).index("alloc"), {"patch"})]
)
def test_what_was_replaced_comes_back(reached: int, left: set[str]) -> None:
    """A fault is used up where the kernel came by it; the function has its own code again either way."""
    memory, points = Memory(reached), {"alloc", "patch"}
    injector = Injector(cast("Any", memory), cast("Any", Addresses()))
    operation = parse_operation("ftrace_set_filter_ip o1 foo1")
    place = place_of("alloc", operation)

    assert place is not None
    assert place_of("patch", operation) is None
    with injector.failing(points, operation):
        written = dict(memory.written)

        assert {Addresses().address(place.symbol), NOTED} == set(written)
    assert (Addresses().address(place.symbol), b"\x90" * 15) == memory.written[-1]
    assert left == points


def test_an_operation_stands_in_one_table() -> None:
    """Where a function stands for a point the operation is no more among those in which it cannot fail."""
    lines = (
        "ftrace_set_filter_ip o1 foo1",
        "register_ftrace_direct_multi o1 T1",
        "bpf_link_detach l1",
        "livepatch foo1",
    )
    for operation in map(parse_operation, lines):
        for point in POINTS:
            assert not (place_of(point, operation) and reaches(point, operation)), (point, operation)
    assert NOTE.startswith("massattach_")


def test_an_ops_is_quiet_while_its_notrace_hash_holds_the_kernel() -> None:
    """Only a pattern that selects every other function makes it so, and one that takes any of them out ends it."""
    run, foreign = RunState(Inventory.at_start(synthetic(), PRESETS["linux-7.3"])), ("vfs_read", "schedule")
    expected = {
        "ftrace_set_notrace o1 foo1": False,
        "ftrace_set_notrace o1 *": True,
        "ftrace_set_notrace o1 !foo1": True,
        "ftrace_set_notrace o1 !vfs_*": False,
        "ftrace_set_notrace o1 * reset": True,
        "ftrace_set_notrace o1 foo1 reset": False,
    }
    for line, quiet in expected.items():
        run.follow_quiet(parse_operation(line), Ok(), foreign)

        assert quiet == ("o1" in run.quiet), line
    run.follow_quiet(parse_operation("ftrace_set_notrace o1 *"), Errno("ENODEV"), foreign)
    assert "o1" not in run.quiet


@pytest.mark.parametrize(
    ("livepatched", "told"), [(True, "cannot make 'register' fail in this operation"), (False, "")]
)
def test_a_check_that_comes_first_by_the_rules(livepatched: bool, told: str) -> None:
    """Where direct calls may meet an IPMODIFY user the kernel comes by the point, and the rules answer before it."""
    inventory = Inventory.at_start(synthetic(), PRESETS["linux-6.12"])
    for line in ("ftrace_ops o1", *(["livepatch foo1"] if livepatched else [])):
        inventory = follow(inventory, parse_operation(line), Ok())
    run = RunState(inventory, failing={"register"})

    assert told == Decliner(cast("Any", None), run, retries=False).reason(
        parse_operation("register_ftrace_direct_multi o1 T1")
    )
