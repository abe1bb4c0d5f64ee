"""Kprobe programs on functions of large worlds, in lockstep."""

from __future__ import annotations

import pytest

from impl.batched import per_function
from properties.lockstep.lockstep import Lockstep
from properties.systems.naming import world_named
from spec.seeds import Step, parse_operation
from spec.semantics import PRESETS


@pytest.mark.parametrize("kind", ["kprobe", "kretprobe"])
def test_of_a_function_without_a_prototype_all_registers_are_seen(kind: str) -> None:
    """KPROBE-8: those for which the call has no word are 0."""
    lines = (f"bpf_prog_load p1 {kind}", "bpf_link_create l1 p1 many1250", "call many1250 1 -2 3")
    together = Lockstep(world_named("synthetic-1500"), PRESETS["linux-7.3"], [per_function])
    found = together.run(Step(parse_operation(line)) for line in lines)

    assert not together.inventory.world.by_name["many1250"].prototype
    assert () == found
