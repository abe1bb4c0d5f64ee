"""Bugs that only tasks show which stand in the middle of a call: in lifetimes, and in what such tasks skip."""

from __future__ import annotations

from impl.batched.jit.template import Template
from impl.batched.lifetimes import REFERENCES
from impl.batched.machine.text import Text
from impl.batched.machine.threads import Thread
from impl.batched.state import Program
from impl.batched.tasks import TaskList
from impl.planted.planting import Original, planted
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
    origin="#58 e21aa341785c",
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
    origin="#60",
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
    origin="#61",
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
    "tasks.skip_fexit",
    rule="TASK-5",
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
    "tasks.TaskList._skip_programs",
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
def living_image_runs_what_has_left(_original: Original, _tasks: TaskList, _thread: Thread) -> None:
    """A program that has left is not skipped in an image that a task is still in."""
