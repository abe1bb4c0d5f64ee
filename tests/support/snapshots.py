"""All that can be seen of a system of `batched`, to compare before and after."""

from __future__ import annotations

import numpy as np

from impl.batched import Batched
from spec.traces import Trace
from spec.worlds import synthetic


def programs(system: Batched) -> list[tuple[list[str], ...]]:
    """For each function the programs of its three lists, by name and cookie."""
    state = system.state
    sets, cookies = state.trampolines.sets, state.trampolines.cookies

    def spelled(node: int) -> str:
        return f"{state.program_numbered[sets.node_program[node]].name}:{cookies[node]}"

    return [tuple([*map(spelled, each)] for each in sets.content(int(number))) for number in sets.of]


def traces(system: Batched) -> list[Trace]:
    world = synthetic().functions
    return [system.call(function.name, tuple(range(1, 1 + len(function.prototype.slots)))) for function in world]


def snapshot(system: Batched) -> list[object]:
    """All that can be observed of a system over the synthetic world, and what later operations go by."""
    state = system.state
    arrays = [
        state.direct.entry,
        state.direct.single,
        state.direct.gone,
        state.direct.gone_entry,
        state.direct.gone_single,
        state.trampolines.share,
        state.trampolines.orig_stack,
        state.trampolines.part,
        *vars(state.sites).values(),
    ]
    ops = state.ops.values()
    hashes = [
        (one.name, one.enabled, one.filter_hash.tolist(), one.notrace_hash.tolist(), one.addresses().tolist())
        for one in ops
    ]
    return [
        dict(system.sites()),
        system.cost(),
        programs(system),
        traces(system),
        [np.asarray(array).tolist() for array in arrays],
        hashes,
        sorted(state.links),
    ]
