"""How a run is undone: from what exists by the answers, the operations that take all of it away."""

from __future__ import annotations

from collections.abc import Iterator

from spec import operations as op
from spec.existing import SINGLE_API
from spec.following import NEVER
from spec.inventory import Inventory
from spec.worlds import World

__all__ = ["undo_operations"]

PROBE = "probe"
PROBE_MOST_FUNCTIONS = 1000


def undo_operations(inventory: Inventory) -> Iterator[op.Operation]:
    """What detaches and unregisters everything, and then shows that no entry was left; nothing once ftrace is dead.

    A direct ops gets one address first: unregistering leaves entries with another one behind (DIRECT-8).
    """
    yield from map(op.Finish, inventory.tasks)
    if inventory.pending is not None:
        yield op.Await(inventory.pending)
    if inventory.dead:
        return
    yield from (op.Fail(point, NEVER) for point in sorted(inventory.armed))
    if inventory.off:
        yield op.FtraceEnabled("1")
    yield from (op.BpfLinkDetach(link) for link in (*inventory.links, *inventory.kprobes))
    yield from (op.UnregisterFtraceGraph(user) for user in inventory.graph_users)
    yield from (op.Unlivepatch(function) for function in inventory.livepatches)
    for function, tramp in inventory.entries(SINGLE_API).items():
        yield op.UnregisterFtraceDirect(function, tramp)
    for name, record in inventory.ops.items():
        if record.enabled and record.direct:
            yield op.ModifyFtraceDirectMulti(name, "T1")
            yield op.UnregisterFtraceDirectMulti(name, "T1")
        elif record.enabled:
            yield op.UnregisterFtraceFunction(name)
    yield from (op.InitModule(module) for module in inventory.world.modules if module not in inventory.modules)
    if len(inventory.world.functions) <= PROBE_MOST_FUNCTIONS and not inventory.unclean:
        yield from _probe(inventory.world)


def _probe(world: World) -> Iterator[op.Operation]:
    """A direct registration over everything meets any entry and any IPMODIFY user that was left."""
    yield op.FtraceOps(PROBE)
    yield op.FtraceSetFilterIps(PROBE, tuple(function.name for function in world.functions if function.has_site))
    yield op.RegisterFtraceDirectMulti(PROBE, "T1")
    yield op.UnregisterFtraceDirectMulti(PROBE, "T1")
