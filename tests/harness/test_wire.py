"""Operations and observations go over the wire to a process, and come back as they were."""

from __future__ import annotations

import dataclasses

import pytest

from properties.systems import wire
from spec.operations import OPERATIONS, Operation
from spec.outcomes import Errno, Ok, Pending
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.traces import (
    Body,
    DirectCall,
    GraphEntry,
    GraphReturn,
    NestedCall,
    OpsCall,
    ProgramRun,
    Trace,
)
from spec.worlds import synthetic
from tests.support.ordinary_steps import STEPS

SEMANTICS = PRESETS["linux-7.3"]
LINES = f"""
{STEPS}
ftrace_set_filter_ip o1 foo1 remove
ftrace_set_filter_ips o1 foo1 foo2 reset
ftrace_set_notrace o1 !foo* reset
ftrace_free_filter o1
unregister_ftrace_function o1
register_ftrace_direct foo1 T1
unregister_ftrace_direct foo1 T1
modify_ftrace_direct foo1 T1 T2
register_ftrace_direct_multi o1 T1
unregister_ftrace_direct_multi o1 T1 free
modify_ftrace_direct_multi o1 T2
update_ftrace_direct_del o1 foo1=T1 foo2=T2
update_ftrace_direct_mod o1 foo1=T1
set_ftrace_filter g1 foo1
set_ftrace_notrace g1
set_graph_function g1 !foo*
set_graph_notrace g1
ftrace_enabled 0
settle
unregister_ftrace_graph g1
unlivepatch foo2
init_module mod1
call foo1 -9223372036854775808
call foo2 18446744073709551615 1
task t1 foo1 1
step t1 3 to=body
finish t1
poke fail alloc 2
poke_step
await bpf_link_detach l1
step t1 to=before:p1 how=sleep
grace_period rcu_tasks
"""


@pytest.mark.parametrize("verb", OPERATIONS)
def test_operations_survive_the_wire(verb: str) -> None:
    """Every class of operation is the same behind encoding and decoding."""
    lines = [line for line in LINES.split("\n") if line.split()[:1] == [verb]]
    assert lines
    for line in lines:
        operation = parse_operation(line)
        sent = wire.read_line(wire.write_line({"apply": wire.encode(operation)}))

        assert operation == wire.decode(Operation, sent["apply"], "apply")


def test_observations_survive_the_wire() -> None:
    """Traces with every event, sites, costs and outcomes are the same behind encoding and decoding."""
    run = ProgramRun("fsession", "p", (1, 2**64 - 1), "foo1", 1, (1, "EINVAL"), "EOPNOTSUPP", 7, True, "p")
    inner = Trace((Body((1,), patched=True),), None)
    events = (
        OpsCall("o"),
        GraphEntry("g", "f", 1),
        DirectCall("T"),
        run,
        dataclasses.replace(run, func_ip=None, session=None, ret=-1),
        Body(()),
        NestedCall("f", inner),
        GraphReturn("g", "f", 1),
    )
    trace = Trace(events, 3)

    assert trace == wire.read_trace(wire.read_line(wire.write_line({"trace": wire.encode(trace)})))
    for outcome in (Ok(), Ok(warn=True), Pending(), Errno("E2BIG"), Errno("ENODEV", warn=True)):
        assert outcome == wire.read_outcome(wire.outcome_answer(outcome))


def test_hello_tells_the_whole_world() -> None:
    """A process learns every function, prototype, callee and fact."""
    world, semantics = wire.read_hello(wire.read_line(wire.write_hello(synthetic(), SEMANTICS)))

    assert ("synthetic", synthetic().functions, SEMANTICS) == (world.name, world.functions, semantics)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"trace": {"events": [], "valve": 1}}, "trace.value: is missing, in {'events'"),
        ({"trace": {"events": {}, "value": 1}}, "trace.events: expected a list, not an object"),
        ({"trace": {"events": [], "value": 1.5}}, "trace.value: expected an integer or null, not a float, in .*1.5"),
        ({"trace": {"events": [], "value": True}}, "trace.value: expected an integer or null, not true or false"),
        (
            {"trace": {"events": [{"ops": "o1"}], "value": 1}},
            r"trace.events\[0\]: expected an object whose 'event' is one of ops, graph_entry",
        ),
        ({"trace": {"events": [{"event": []}], "value": 1}}, r"trace.events\[0\]: expected an object whose 'event'"),
        ({"trace": {"events": [7], "value": 1}}, r"trace.events\[0\]: expected an object whose 'event'"),
        (
            {"trace": {"events": [{"event": "jump"}], "value": 1}},
            r"trace.events\[0\]: expected an object whose 'event' is one of ops, graph_entry",
        ),
        (
            {"trace": {"events": [{"event": "ops", "ops": "o", "x": 1}], "value": 1}},
            r"trace.events\[0\].x: is no member: write ops",
        ),
        (
            {"trace": {"events": [{"event": "body", "arguments": [[]]}], "value": 1}},
            r"trace.events\[0\].arguments\[0\]: expected an integer, not a list",
        ),
    ],
)
def test_a_malformed_trace_is_told_with_its_place(answer: dict[str, object], sentence: str) -> None:
    """The decoder names the member that is wrong and what it expected."""
    with pytest.raises(wire.WireError, match=sentence):
        wire.read_trace(answer)
