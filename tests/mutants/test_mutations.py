"""Small changes of machine code: which there are, which are left alone, and that their keys outlive a new kernel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from impl.linux.architectures import Change
from impl.linux.architectures.x86_64 import X86_64
from impl.linux.guest.guest import SNAPSHOT, Guest
from impl.linux.instruments import mutants
from impl.linux.instruments.mutants import Linked
from tests.support.made_mutants import BASE, candidates, function_code, linked

TURNED = [Change.INVERTED, Change.ALWAYS, Change.NEVER]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("740c", {Change.INVERTED: "750c", Change.ALWAYS: "eb0c", Change.NEVER: "6690"}),
        (
            "0f85e51f0000",
            {Change.INVERTED: "0f84e51f0000", Change.ALWAYS: "90e9e51f0000", Change.NEVER: "660f1f440000"},
        ),
        ("e8eb0f0000", {Change.CALL: "31c00f1f00"}),
        ("83f802", {Change.CONSTANT: "83f803"}),
        ("83f87f", {Change.CONSTANT: "83f880"}),
        ("803d1122334403", {Change.CONSTANT: "803d1122334404"}),
        ("4881ff00108082", {Change.CONSTANT: "4881ff01108082"}),
        ("b8f4ffffff", {Change.ERRNO: "b8dfffffff", Change.SUCCESS: "b800000000"}),
        ("48c7c3dfffffff", {Change.ERRNO: "48c7c3eaffffff", Change.SUCCESS: "48c7c300000000"}),
        ("48894708", {Change.STORE: "0f1f4000"}),
        ("814f0800000010", {Change.STORE: "0f1f8000000000"}),
        ("4881878800000000010000", {Change.STORE: "660f1f8400000000006690"[:22]}),
    ],
)
def test_every_change_of_an_instruction(code: str, changes: dict[Change, str]) -> None:
    """A change has as many bytes as the instruction, and is one instruction or some that do the same together."""
    found = list(X86_64.mutate(BASE, bytes.fromhex(code)))

    assert {change: bytes.fromhex(new) for change, new in changes.items()} == {each.change: each.new for each in found}
    assert {len(code) // 2} == {len(each.new) for each in found}
    assert all(each.old.hex() == code and each.address == BASE for each in found)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("48890424", "a store on the stack"),
        ("65ff0511223344", "a store of one processor"),
        ("f048ff07", "an atomic store"),
        ("b8ffffffff", "a mask"),
        ("b8f4000000", "a number"),
        ("ff10", "a call through memory"),
        ("eb10", "a jump that is not conditional"),
        ("85ff", "a test"),
        ("0f1f440000", "a nop"),
    ],
)
def test_what_is_left_alone(code: str, why: str) -> None:
    """Some instructions have no mutants."""
    assert [] == list(X86_64.mutate(BASE, bytes.fromhex(code))), why


def test_an_inverted_jump_is_decoded_as_its_opposite() -> None:
    """Its target stays, also where it always jumps."""
    code = bytes.fromhex("0f84e51f0000")
    inverted, always, _ = X86_64.mutate(BASE, code)
    (target,) = {each.target for each in X86_64.read_flow(BASE, inverted.new)}

    assert (BASE + 0x1FEB, BASE + 0x1FEB) == (inverted.target, target)
    assert [None, BASE + 0x1FEB] == [each.target for each in X86_64.read_flow(BASE, always.new)]


def test_the_mutants_of_a_function(tmp_path: Path) -> None:
    """Each names its place, what is called, its block and where a jump may lead."""
    found = candidates(tmp_path / "vmlinux", BASE, function_code(0x100))
    by_place = {(each.at, each.change): each for each in found.mutants if each.function == "bpf_trampoline_get"}
    call, store, jump = by_place[4, Change.CALL], by_place[9, Change.STORE], by_place[2, Change.INVERTED]

    assert [(2, change) for change in TURNED] + [(4, Change.CALL), (9, Change.STORE), (13, Change.CONSTANT)] + [
        (16, change) for change in TURNED
    ] + [(18, Change.ERRNO), (18, Change.SUCCESS)] == list(by_place)
    assert ("bpf_trampoline_put", "e8f7000000", "31c00f1f00") == (call.target, call.old, call.new)
    assert ("kernel/bpf/trampoline.c", BASE + 9, BASE + 9) == (store.source, store.address, store.block)
    assert (BASE, (BASE + 9, BASE + 4)) == (jump.block, jump.ways)
    assert ((), (), ("bpf_trampoline_put",)) == jump.near
    assert 0 == found.patched


def test_what_the_kernel_has_patched_is_left_alone(tmp_path: Path) -> None:
    """An instruction whose bytes are not those that were linked is counted, and has no mutant."""
    live, built = function_code(0x100), bytearray(function_code(0x100))
    built[9:13] = bytes.fromhex("0f1f4000")
    found = candidates(tmp_path / "vmlinux", BASE, live, bytes(built))

    assert 1 == found.patched
    assert Change.STORE not in {each.change for each in found.mutants}
    assert 2 == sum(each.at == 18 for each in found.mutants)


@pytest.mark.parametrize("callee", ["__fentry__", "__x86_indirect_thunk_rax", "__SCT__might_resched"])
def test_calls_that_are_no_part_of_a_function(callee: str) -> None:
    """Sites, thunks and static calls are never left out."""
    assert mutants._is_passed_over(callee)
    assert not mutants._is_passed_over("mutex_lock")


def test_a_key_outlives_a_new_kernel(tmp_path: Path) -> None:
    """The same code at another address and distance has the same keys; with another errno it has others nearby."""
    keys = []
    places = ((BASE, 0x100, -12), (BASE + 0x7000, 0x100, -12), (BASE, 0x100, -22))
    for number, (base, distance, errno) in enumerate(places):
        found = candidates(tmp_path / f"vmlinux{number}", base, function_code(distance, errno))
        keys.append({(each.at, each.change): each.code for each in found.mutants if each.at != 0})
    moved = bytearray(function_code(0x100))
    moved[5:9] = (0x2000).to_bytes(4, "little")

    assert keys[0] == keys[1]
    # the errno is three blocks behind the first jump
    assert {(2, change) for change in TURNED} == {place for place in keys[0] if keys[0][place] == keys[2][place]}
    assert X86_64.mask(BASE, function_code(0x100)) == X86_64.mask(BASE + 64, bytes(moved))
    assert len({code for (_, change), code in keys[0].items() if change not in TURNED}) >= 4


def test_masked_code_has_no_addresses() -> None:
    """Distances and addresses of the kernel's become zeros; offsets in structures and constants stay."""
    code = bytes.fromhex("e8eb0f0000 7405 48c7c700108082 48890511223344 48894708 83f803 b8f4ffffff")
    masked = bytes.fromhex("e800000000 7400 48c7c700000000 48890500000000 48894708 83f803 b8f4ffffff")

    assert masked == X86_64.mask(BASE, code)


def test_bytes_as_they_were_linked(tmp_path: Path) -> None:
    """They are found by address; outside the segments there are none."""
    file = Linked(linked(tmp_path / "vmlinux", {BASE: b"abcd", BASE + 0x1000: b"efgh"}))

    assert [b"bc", b"h", b"", b""] == file.read([(BASE + 1, 2), (BASE + 0x1003, 1), (BASE + 3, 2), (0, 1)])


def test_a_change_comes_back_after_each_restore(tmp_path: Path) -> None:
    """It is poked when a snapshot was loaded, in the order that was given, until it is taken back."""
    done: list[Any] = []
    console = tmp_path / "console"
    console.touch()
    qemu = SimpleNamespace(
        monitor=lambda command: done.append(command) or "", write_memory=lambda *place: done.append(place)
    )
    guest = Guest.__new__(Guest)
    guest._setup = SimpleNamespace(console=console)  # type: ignore[assignment]
    guest._running, guest._alive, guest._changes = [qemu], True, ()  # type: ignore[list-item]

    guest.restore()
    guest.change([(BASE, b"a"), (BASE + 4, b"b")])
    guest.restore()
    guest.restore()
    guest.change(())
    guest.restore()
    loaded, changed = f"loadvm {SNAPSHOT}", [(BASE, b"a"), (BASE + 4, b"b")]

    assert [loaded, loaded, *changed, loaded, *changed, loaded] == done
