"""The sysctl kernel.ftrace_enabled (SYSCTL-*)."""

from __future__ import annotations

from dataclasses import replace

from model.endings import Refused, Warned, check_alive
from model.poke import poke, replaced
from model.rules import cite
from model.sites import covering, selected
from model.state import State
from spec import operations as op

__all__ = ["check_records", "ftrace_enable_sysctl"]


def ftrace_enable_sysctl(state: State, operation: op.FtraceEnabled) -> State | Warned:
    """SYSCTL-1, SYSCTL-2: ftrace is turned off or on, and every site that has ops is patched."""
    check_alive(state, "SYSCTL-1")
    if not operation.on and not state.semantics.sysctl_stops:
        raise Refused(state, "EOPNOTSUPP", "SYSCTL-1")
    cite("SYSCTL-1")
    if operation.on != state.off:
        return state
    if not operation.on and any(state.ops[key].permanent for key in state.ops_list):
        raise Refused(state, "EBUSY", "SYSCTL-1")
    cite("SYSCTL-2")
    after = replaced(state, replace(state, off=not operation.on), selected(state))
    after, died = poke(after)
    if died:
        # proc_dointvec() has answered 0 by then, and nobody asks what became of the pass.
        cite("DEAD-1")
        return Warned(replace(state, dead=True, armed=after.armed))
    return after


def check_records(before: State, state: State) -> State | Warned:
    """SYSCTL-5: when the last ops leaves, ftrace_shutdown() looks whether a record is still flagged."""
    leaves = (before.ops_list or before.images) and not (state.ops_list or state.images)
    if not leaves or before.off or before.dead:
        return state
    if all(covering(before, function) for function in before.regs_left):
        return state
    cite("SYSCTL-5")
    return Warned(replace(state, dead=True))
