"""Bugs that only tasks show which stand in the middle of a call: in lifetimes, and in what such tasks skip."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from impl.batched.jit.template import Template
from impl.batched.lifetimes import REFERENCES, Lifetimes
from impl.batched.machine.images import Pieces
from impl.batched.machine.tables import Tables
from impl.batched.machine.text import Text
from impl.batched.state import Program
from impl.batched.tasks import ListedTask, TaskList
from impl.planted.planting import Origin, Original, planted
from spec.outcomes import Outcome
from spec.semantics import Semantics


@planted(
    "lifetimes.program_waits",
    rule="TASK-10",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_prog_load p2 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    bpf_raw_tracepoint_open l2 p2 foo1
    task t1 foo1 1
    step t1 to=image
    bpf_link_detach l1
    grace_period rcu
    finish t1
    """,
)
def program_freed_on_the_way(_original: Original, _facts: Semantics, program: Program) -> list[str]:
    """A program is freed though a task is on its way to it: DEFECT-17 of 6.1 and 6.12."""
    return ["rcu_tasks_trace" if program.sleepable else "rcu"]


@planted(
    "lifetimes.image_waits",
    rule="TASK-10",
    origin=Origin(58, "e21aa341785c", "bpf: Fix fexit trampoline."),
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=body how=sleep
    bpf_link_detach l1
    grace_period rcu_tasks
    finish t1
    """,
)
def image_freed_under_a_sleeper(original: Original, calls_original: bool) -> list[str]:
    """An image is freed though a task sleeps in the body that it called."""
    return ["rcu_tasks"] if calls_original else original(calls_original)


@planted(
    "lifetimes.image_waits",
    rule="TASK-10",
    origin=Origin(60, "e21aa341785c", "bpf: Fix fexit trampoline."),
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=image
    bpf_link_detach l1
    step t1 to=body how=sleep
    grace_period rcu_tasks
    finish t1
    """,
)
def missing_first_rcu_tasks(original: Original, calls_original: bool) -> list[str]:
    """Tasks are counted without a wait for those that have yet to come to __bpf_tramp_enter."""
    return [REFERENCES, "rcu_tasks"] if calls_original else original(calls_original)


@planted(
    "lifetimes.image_waits",
    rule="TASK-10",
    origin=Origin(61, "e21aa341785c", "bpf: Fix fexit trampoline."),
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=body how=sleep
    bpf_link_detach l1
    grace_period rcu_tasks
    step t1 to=exit
    finish t1
    """,
)
def missing_last_rcu_tasks(original: Original, calls_original: bool) -> list[str]:
    """An image is freed as soon as the last task has come from __bpf_tramp_exit, which then stands in it."""
    return ["rcu_tasks", REFERENCES] if calls_original else original(calls_original)


@planted(
    "lifetimes.image_waits",
    rule="TASK-10",
    origin=Origin(0, "e21aa341785c", "bpf: Fix fexit trampoline."),
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry sleepable
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=program:p1 how=sleep
    bpf_link_detach l1
    grace_period rcu_tasks
    finish t1
    """,
)
def missing_rcu_tasks_trace(original: Original, calls_original: bool) -> list[str]:
    """An image that does not call the original is freed though a task sleeps in a sleepable program of it."""
    return original(calls_original) if calls_original else ["rcu_tasks"]


@planted(
    "lifetimes.image_waits",
    rule="TASK-10",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry sleepable
    bpf_prog_load p2 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=image
    bpf_raw_tracepoint_open l2 p2 foo1
    grace_period rcu_tasks_trace
    step t1 to=program:p1 how=sleep
    grace_period rcu_tasks
    finish t1
    """,
)
def image_freed_under_who_came_before(original: Original, calls_original: bool) -> list[str]:
    """An image is freed though a task that was in it before goes to sleep in a program of it: DEFECT-44 of kernels."""
    return original(calls_original) if calls_original else ["rcu_tasks_trace", "rcu_tasks"]


@planted(
    "tasks.skip_fexit",
    rule="TASK-5",
    origin=Origin(0, "e21aa341785c", "bpf: Fix fexit trampoline."),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=body how=sleep
    bpf_link_detach l1
    finish t1
    """,
)
def put_image_runs_fexit(_original: Original, _text: Text, _address: int, _made: Template) -> None:
    """ip_after_call is not patched when an image is put."""


@planted(
    "tasks.TaskList.skip_detached",
    rule="TASK-4",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=image
    bpf_link_detach l1
    finish t1
    """,
)
def living_image_runs_what_has_left(_original: Original, _tasks: TaskList) -> None:
    """A program that has left is not skipped in an image that a task is still in."""


@planted(
    "machine.images.image_object",
    rule="TASK-10",
    origin=Origin(63, "19d3c179a377", "bpf, arm64: Fix trampoline for BPF_TRAMP_F_CALL_ORIG"),
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    bpf_raw_tracepoint_open l2 p1 foo2
    task t1 foo2 1 2
    step t1 to=body how=sleep
    bpf_link_detach l2
    grace_period rcu_tasks
    grace_period rcu_tasks
    finish t1
    """,
)
def tasks_counted_in_another_image(original: Original, places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The address of struct bpf_tramp_image that __bpf_tramp_enter gets has lost some bits: another object counts."""
    counted: NDArray[np.uint64] = original(places & ~0xFFFF)
    return counted


@planted(
    "lifetimes.Lifetimes.put",
    rule="TASK-10",
    origin=Origin(68, "4121d4481b72", "bpf: Synchronize dispatcher update with bpf_dispatcher_xdp_func"),
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_prog_load p2 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=image
    bpf_raw_tracepoint_open l2 p2 foo1
    bpf_link_detach l2
    finish t1
    """,
)
def image_written_at_the_second_update(original: Original, lifetimes: Lifetimes, pieces: Pieces) -> None:
    """The place of an image is free again at the second update, whoever stands in it.

    The kernel's dispatcher had two halves of a page, which updates wrote in turn without a wait between them.
    """
    lifetimes.end()
    original(lifetimes, pieces)


@planted(
    "lifetimes.program_waits",
    rule="TASK-10",
    origin=Origin(0, "ef1b808e3b7c", "bpf: Fix UAF via mismatching bpf_prog/attachment RCU flavors"),
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry sleepable
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=program:p1 how=sleep
    bpf_link_detach l1
    grace_period rcu_tasks
    grace_period rcu
    finish t1
    """,
)
def sleepable_program_freed_behind_rcu(original: Original, facts: Semantics, program: Program) -> list[str]:
    """A program is freed behind a grace period of another flavour than that which protects its readers."""
    reaching, _ = original(facts, program)
    return [reaching, "rcu"]


@planted(
    "lifetimes.program_waits",
    rule="TASK-10",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=before:p1
    bpf_link_detach l1
    grace_period rcu
    finish t1
    """,
)
def program_freed_behind_its_skip(original: Original, facts: Semantics, program: Program) -> list[str]:
    """A program that is skipped is freed without a wait for tasks that stand between the nop and its call."""
    _, inside = original(facts, program)
    return [inside]


@planted(
    "tasks.TaskList._holding",
    rule="TASK-8",
    semantics="linux-6.12",
    minimal="""
    task t1 foo1 1
    task t2 foo1 1
    step t2 to=body how=sleep
    grace_period rcu_tasks
    """,
)
def waits_for_one_holdout(_original: Original, tasks: TaskList, flavour: str) -> list[ListedTask]:
    """Of two tasks the one that came last is asked alone whether it holds a grace period up."""
    return [task for task in list(tasks.tasks.values())[-1:] if flavour in task.holds()]


@planted(
    "machine.tables.Tables.references",
    rule="TASK-10",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    task t2 foo1 1
    step t1 to=body how=sleep
    step t2 to=body how=sleep
    bpf_link_detach l1
    grace_period rcu_tasks
    grace_period rcu_tasks
    finish t1
    """,
)
def tasks_counted_in_one_bit(original: Original, tables: Tables, number: int) -> int:
    """Two tasks in an image count as none."""
    counted: int = original(tables, number)
    return counted % 2


@planted(
    "tasks.TaskList.judge",
    rule="TASK-7",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    bpf_link_detach l1
    """,
)
def last_detach_waits_for_nobody(
    original: Original, tasks: TaskList, outcome: Outcome, _waits: Mapping[str, int], dropped: Program | None
) -> Outcome:
    """A direct ops is unregistered without a wait for tasks that are on their way from its site."""
    answer: Outcome = original(tasks, outcome, {}, dropped)
    return answer


@planted(
    "lifetimes.image_waits",
    rule="TASK-10",
    origin=Origin(0, "05d57f1793fb", "bpf: Fix trampoline usage in preempt"),
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_prog_load p2 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=image
    bpf_raw_tracepoint_open l2 p2 foo1
    finish t1
    """,
)
def image_freed_under_a_preempted_task(original: Original, calls_original: bool) -> list[str]:
    """An update frees the old image at once, though a task was preempted in it."""
    return original(calls_original) if calls_original else []
