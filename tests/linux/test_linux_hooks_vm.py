"""LSM's hooks as real kernels have them: which take programs, which of these may sleep, and what they may return."""

from __future__ import annotations

import pytest

from impl.linux.bpf import commands
from impl.linux.bpf.instructions import encode, exit_program, move
from impl.linux.bpf.recorders import ATTACH_TYPES
from impl.linux.guest.batch import Batch
from impl.linux.guest.errnos import errno_name
from impl.linux.station import Station
from spec import populations
from spec.populations.hooks import PREFIX
from spec.semantics import PRESETS
from spec.worlds import Function

pytestmark = pytest.mark.vm

RETURNS = (0, 1, 2, -1, -4095, -4096, 1 << 32, (1 << 32) + 1, (1 << 32) - 1, 1 << 31)


def load(station: Station, function: Function, returns: int, *, sleepable: bool = False) -> str:
    """What the kernel answers to an lsm program for a function of vmlinux."""
    batch, text = Batch(), encode([*move(0, returns), exit_program()])
    target = station.vmlinux.functions[function.symbol]
    index = commands.load_program(batch, text, ATTACH_TYPES["lsm", False], "hook", sleepable=sleepable, btf_id=target)
    found = station.guest.submit(batch)[index].value
    if found >= 0:
        commands.close_all(station.guest, [found])
    return "0" if found >= 0 else f"-{errno_name(found)}"


def named_like_hooks(station: Station) -> list[Function]:
    world = populations.load(station.kernel.name)
    found = [world.find(name) for name in station.vmlinux.functions if name.startswith(PREFIX)]

    assert None not in found
    return [function for function in found if function]


def test_each_hook_takes_what_the_lists_say(station: Station) -> None:
    """Every function of the name bpf_lsm_: whether it takes an lsm program, and one that may sleep (LSM-2)."""
    seen, said = {}, {}
    for function in named_like_hooks(station):
        marks = function.attributes
        seen[function.name] = load(station, function, 0), load(station, function, 0, sleepable=True)
        said[function.name] = tuple("0" if {"lsm", *more} <= marks else "-EINVAL" for more in ((), ("lsm_sleepable",)))

    assert len(said) > 200
    assert said == seen


def test_each_hook_lets_through_what_it_may_return(station: Station) -> None:
    """Every hook and values around the ends of each range, of 32 bits and of 64 (LSM-3)."""
    checked = PRESETS[station.kernel.name].lsm_return_checked
    seen, said = {}, {}
    for function in (each for each in named_like_hooks(station) if "lsm" in each.attributes):
        for value in RETURNS:
            low = (value + (1 << 31)) % (1 << 32) - (1 << 31)
            fits = low in {0, 1} if "lsm_bool" in function.attributes else -4095 <= low <= 0
            void = function.prototype is not None and function.prototype.returns.kind == "VOID"
            said[function.name, value] = "0" if void or fits or not checked else "-EINVAL"
            seen[function.name, value] = load(station, function, value)

    assert len(said) > 2000
    assert said == seen
