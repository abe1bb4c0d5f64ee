"""Text that is patched step by step: what a second processor may meet before it synchronises, and what is handled."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from impl import batched
from impl.batched.machine.entries import CALL, JMP, NOP, SITE_BYTES, branches, fresh_text, site_offsets
from impl.batched.machine.poke import INT3, poke
from impl.batched.machine.stopping import emulate
from impl.planted import poking as bugs
from impl.planted.planting import Planted
from properties.hunt.search import INTERLEAVED_ROUNDS, Search
from properties.lockstep.lockstep import Lockstep
from spec.abi import Slot
from spec.seeds import Step, parse_operation
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import World, large, synthetic

PLACE = 0x81000000
TARGETS = np.array([0, 0x90000010, 0x90000021, 0xA0001230], np.uint32)
"""A nop, a call, a jump, another call."""

ENDLESS = 1e12


@pytest.mark.parametrize("before", range(len(TARGETS)))
@pytest.mark.parametrize("after", range(len(TARGETS)))
def test_no_processor_meets_a_mixture(before: int, after: int) -> None:
    """Whichever of the bytes that were written since the last synchronisation it sees: the old, a trap, or the new."""
    text = fresh_text(1).reshape(-1)
    where = site_offsets(np.arange(1))
    site = slice(int(where[0]), int(where[0]) + SITE_BYTES)
    old, new = (branches(where, TARGETS[[number]]) for number in (before, after))
    text[site] = old.view(np.uint8)
    synchronised = bytes(text[site])
    for _ in poke(text, where, new):
        written = bytes(text[site])
        for view in product(*({one, other} for one, other in zip(synchronised, written, strict=True))):
            assert view[0] == INT3 or bytes(view) in {old.tobytes(), new.tobytes()}
        synchronised = written

    assert new.tobytes() == synchronised


@pytest.mark.parametrize(
    ("code", "target", "pushes"),
    [
        (NOP, PLACE + 5, False),
        (bytes([CALL]) + (0x10).to_bytes(4, "little"), PLACE + 0x15, True),
        (bytes([JMP]) + (-0x10).to_bytes(4, "little", signed=True), PLACE - 0xB, False),
    ],
)
def test_the_handler_does_what_the_new_instruction_does(code: bytes, target: int, pushes: bool) -> None:
    """A nop is gone over, a jump is taken, and a call pushes its return address as well."""
    assert (target, pushes) == emulate(code, PLACE)


def words_of(world: World, name: str) -> tuple[Slot, ...]:
    """The argument words of a function."""
    prototype = world.by_name[name].prototype
    assert prototype is not None
    return prototype.slots


@pytest.mark.parametrize("level", LEVELS)
def test_sites_of_later_rounds_do_as_before(level: str) -> None:
    """256 sites are a round, in the order of addresses; at every level, with an ops on a third of a large world."""
    world = large()
    names = [function.name for function in world.functions if function.has_site][::3]
    assert len(names) > 400
    going = Lockstep(world, PRESETS["linux-7.3"], [getattr(batched, level)])
    called = [f"call {name}{' 1' * len(words_of(world, name))}" for name in (names[0], names[-1])]
    poked = ["ftrace_ops o1", f"ftrace_set_filter_ips o1 {' '.join(names)}", "poke register_ftrace_function o1"]
    assert () == going.run(Step(parse_operation(line)) for line in [*poked, *called])
    seen = [[going.step(Step(parse_operation(line))).observed for line in ("poke_step", *called)] for _ in range(3)]

    assert ["pending"] * 3 == [answer for answer, _, _ in seen]
    assert all(first.startswith("ops:o1") for _, first, _ in seen)
    assert [False, False, True] == [last.startswith("ops:o1") for _, _, last in seen]
    assert () == going.undo()
    assert () == going.close()


BUGS = [bug for bug in vars(bugs).values() if isinstance(bug, Planted)]


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_search_finds_bugs_of_patching(bug: Planted) -> None:
    """Within some rounds of operations that stop; the shrunk seed stops in one, and is about as short as can be."""
    search = Search(synthetic(), PRESETS[bug.semantics], [bug], 1)
    search.able = (0,)
    found = None
    while found is None and search.rounds < 160:
        search.rounds += INTERLEAVED_ROUNDS - 1
        found = search.round(ENDLESS, 60.0)

    assert found is not None
    assert len(found.seed.steps) <= len(bug.minimal) + 1
    assert {"poke"} <= {step.operation.verb for step in found.seed.steps}
