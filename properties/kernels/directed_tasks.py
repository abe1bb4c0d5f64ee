"""Directed runs of tasks that stand in calls, a row each of what a study saw on three kernels (TASK-*)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spec.semantics import Semantics

__all__ = ["TASK_RUNS", "a_sleepable_program_waits"]

Lines = Iterator[str]
DETACH = "bpf_link_detach l1"


def _one_program(kind: str) -> Lines:
    yield f"bpf_prog_load p1 {kind}"
    yield "bpf_raw_tracepoint_open l1 p1 foo1 -> 0"
    yield "task t1 foo1 1 -> 0"


def _last_detach(s: Semantics, seen: str, seen_detached: str) -> Lines:
    """The last program goes, and the task then goes on: 6.x waits for it, 7.3 passes over what was detached."""
    if s.programs_wait_for_tasks:
        yield f"{DETACH} -> 0"
        yield "grace_period rcu_tasks -> -EBUSY"
        yield f"finish t1 -> {seen_detached}"
        return
    yield f"{DETACH} -> pending"
    yield "site foo1 -> nop"
    yield f"await {DETACH} -> pending"
    yield f"finish t1 -> {seen}"
    yield f"await {DETACH} -> 0"


def _last_detach_from_an_image(s: Semantics) -> Lines:
    """A task at the first instruction of an image, whose last program is detached (TASK-4, TASK-7)."""
    yield from _one_program("fentry")
    yield "step t1 to=image -> image"
    yield from _last_detach(s, "fentry:p1 body =1", "body =1")


def _last_detach_before_it_is_counted(s: Semantics) -> Lines:
    """A task before __bpf_tramp_enter: 6.x puts the image when it has left, so that fexit runs (TASK-5, TASK-7)."""
    yield from _one_program("fexit")
    yield "step t1 to=enter -> enter"
    yield from _last_detach(s, "body fexit:p1 =1", "body =1")


def _last_detach_behind_the_count(s: Semantics) -> Lines:
    """A task behind __bpf_tramp_exit still stands in the image (TASK-7, TASK-10)."""
    yield from _one_program("fexit")
    yield "step t1 to=exit -> exit"
    yield from _last_detach(s, "body fexit:p1 =1", "body fexit:p1 =1")


def _another_stays(s: Semantics) -> Lines:
    """A task before a program that leaves while another stays: skipped, or run once more (TASK-4, DEFECT-17)."""
    yield from _one_program("fentry")
    yield "bpf_prog_load p2 fentry"
    yield "bpf_raw_tracepoint_open l2 p2 foo1 -> 0"
    yield "step t1 to=before:p2 -> before:p2"
    yield DETACH
    if s.programs_wait_for_tasks:
        yield "grace_period rcu_tasks -> -EBUSY"
        yield "finish t1 -> fentry:p2 body =1"


def _inside_a_program_that_leaves(s: Semantics) -> Lines:
    """A task in a program that is detached while another stays: it goes on in it (TASK-8, TASK-10)."""
    _ = s
    yield from _one_program("fentry")
    yield "bpf_prog_load p2 fentry"
    yield "bpf_raw_tracepoint_open l2 p2 foo1 -> 0"
    yield "step t1 to=program:p1 -> program:p1"
    yield "grace_period rcu -> -EBUSY"
    yield "call foo1 1 -> fentry:p2 body =1"
    yield DETACH
    yield "finish t1 -> fentry:p2 fentry:p1 body =1"


def a_sleepable_program_waits(s: Semantics) -> Lines:
    """A task asleep in a sleepable program that is detached: it lives until the task has left (TASK-8, TASK-10)."""
    _ = s
    yield "bpf_prog_load p1 fentry sleepable"
    yield "bpf_raw_tracepoint_open l1 p1 sleepy1 -> 0"
    yield "task t1 sleepy1 1 -> 0"
    yield "step t1 to=program:p1 how=sleep -> program:p1"
    yield "grace_period rcu_tasks -> 0"
    yield "grace_period rcu_tasks_trace -> -EBUSY"
    yield f"{DETACH} -> 0"
    yield "grace_period rcu_tasks -> 0"
    yield "finish t1 -> fentry:p1 body =1"


def _asleep_in_the_body(s: Semantics) -> Lines:
    """A task asleep in the body, when the only fexit program, or one of two, is detached (TASK-4, TASK-5)."""
    yield from _one_program("fexit")
    yield "step t1 to=body how=sleep -> body"
    yield f"{DETACH} -> 0"
    yield "finish t1 -> body =1"
    for number in (1, 2):
        yield f"bpf_prog_load q{number} fexit"
        yield f"bpf_raw_tracepoint_open l{number} q{number} foo1 -> 0"
    yield "task t1 foo1 1 -> 0"
    yield "step t1 to=body how=sleep -> body"
    yield f"{DETACH} -> 0"
    yield f"finish t1 -> body {'' if s.image_put_skips_fexit else 'fexit:q2 '}=1"


def _something_is_attached(s: Semantics) -> Lines:
    """A task asleep in the body, and something more is attached (TASK-5)."""
    yield from _one_program("fexit")
    yield "step t1 to=body how=sleep -> body"
    yield "bpf_prog_load p2 fentry"
    yield "bpf_raw_tracepoint_open l2 p2 foo1 -> 0"
    yield f"finish t1 -> body {'' if s.image_put_skips_fexit else 'fexit:p1 '}=1"


def _a_batch_goes(s: Semantics) -> Lines:
    """tracing_multi over ten functions goes while tasks stand in two of its images (TASK-10)."""
    if not s.tracing_multi:
        return
    functions = ("foo1", "foo2", "foo3", "foo4", "foo5", "foo6", "foo7", "foo12", "outer", "sleepy1")
    yield "bpf_prog_load p1 fexit multi"
    yield f"bpf_link_create l1 p1 {' '.join(functions)} -> 0"
    yield "task t1 foo1 1 -> 0"
    yield "step t1 to=image -> image"
    yield "task t2 foo2 1 2 -> 0"
    yield "step t2 to=body how=sleep -> body"
    yield f"{DETACH} -> 0"
    yield "grace_period rcu_tasks -> -EBUSY"
    yield "finish t1 -> body =1"
    yield "grace_period rcu_tasks -> 0"
    yield "finish t2 -> body =3"


def _a_session_goes(s: Semantics) -> Lines:
    """A session is detached between entry and return (TASK-4)."""
    if s.fsession:
        yield from _one_program("fsession")
        yield "step t1 to=body how=sleep -> body"
        yield f"{DETACH} -> 0"
        yield "finish t1 -> fsession:p1 body =1"


def _a_first_attach(s: Semantics) -> Lines:
    """The first attach of all while a task stands: direct_functions grows (COST-6, TASK-7)."""
    attach = "bpf_raw_tracepoint_open l1 p1 foo2"
    yield "bpf_prog_load p1 fentry"
    yield "task t1 foo1 1 -> 0"
    if not s.growth_waits:
        yield f"{attach} -> 0"
        yield "finish t1 -> body =1"
        return
    yield f"{attach} -> pending"
    yield "call foo2 1 2 -> fentry:p1 body =3"
    yield "finish t1 -> body =1"
    yield f"await {attach} -> 0"
    yield "bpf_link_detach l1 -> 0"


def _stop_at_each(operation: str, *seen: str) -> Lines:
    """An operation of so many passes, each of three stops; seen: what a call shows at those of each pass."""
    yield f"poke {operation} -> pending"
    for number, trace in enumerate(trace for trace in seen for _ in range(3)):
        yield from ["poke_step -> pending"] if number else []
        yield f"call foo1 1 -> {trace}"
    yield "poke_step -> 0"


def _a_poke_stands(s: Semantics) -> Lines:
    """A poke stands behind each synchronisation: int3 stands for the new instruction, and nothing is torn (POKE-2)."""
    both, late = "fentry:p1 body fexit:p2 =1", "body fexit:p2 =1"
    yield "bpf_prog_load p1 fentry"
    yield "bpf_prog_load p2 fexit"
    yield from _stop_at_each("bpf_raw_tracepoint_open l1 p1 foo1", "fentry:p1 body =1")
    yield from _stop_at_each("bpf_raw_tracepoint_open l2 p2 foo1", "fentry:p1 body =1", both)
    yield from _stop_at_each("bpf_link_detach l1", late if s.skips_detached else both, late)
    yield from _stop_at_each("bpf_link_detach l2", "body =1")


TASK_RUNS: tuple[Callable[[Semantics], Lines], ...] = (
    _a_batch_goes,
    _a_first_attach,
    _a_poke_stands,
    _a_session_goes,
    _another_stays,
    _asleep_in_the_body,
    _inside_a_program_that_leaves,
    _last_detach_before_it_is_counted,
    _last_detach_behind_the_count,
    _last_detach_from_an_image,
    _something_is_attached,
)
"""Each row that the alphabet can say; the sleepable one needs a function that is marked for it."""
