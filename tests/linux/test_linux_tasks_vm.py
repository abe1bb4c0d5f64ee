"""Tasks that stand in calls, on real kernels (TASK-*): what the seeds expect of each, and what is seen beside them."""

from __future__ import annotations

import errno

import pytest

from impl.linux.directory import Directory
from impl.linux.guest.batch import Batch
from impl.linux.probes.tracefs import ROOT
from impl.linux.station import Station
from impl.linux.system import Linux
from properties.kernels.conformance import fixed_runs
from properties.lockstep.lockstep import Lockstep
from properties.runs.corpus import FixedRun, fixed_run, interleaved
from properties.systems.kernels import laboratory_of
from spec.border import bordered
from spec.operations import Await, Poke, PokeStep
from spec.outcomes import Ok, Pending
from spec.seeds import parse_operation
from spec.semantics import PRESETS, Semantics
from spec.system import System
from spec.worlds import World
from tests.support.stations import KERNELS

pytestmark = pytest.mark.vm

LAST_DETACH = (
    "bpf_prog_load p1 fentry",
    "bpf_raw_tracepoint_open l1 p1 foo1 -> 0",
    "task t1 foo1 1 -> 0",
    "step t1 to=image -> image",
)


def lockstep(station: Station, world: World, semantics: Semantics, *, asked: tuple[str, ...] = ()) -> Lockstep:
    """The model, and a run of the station's kernel."""

    def make(world: World, semantics: Semantics) -> System:
        return bordered(Linux(station, world, semantics, asked=asked), world, semantics)

    return Lockstep(world, semantics, [make])


def take(run: FixedRun, station: Station) -> int:
    """Take the steps of a run as far as the kernel does not decline one; how many these were."""
    semantics = PRESETS[run.seed.semantics]
    together = lockstep(station, run.world, semantics)
    taken = 0
    for step in run.seed.steps:
        if together.declined(step.operation):
            break
        assert not together.step(step).divergences
        taken += 1
    assert not together.undo(settle=True)
    assert not together.close()
    return taken


NAMES = sorted({run.name for kernel in KERNELS for run in interleaved(PRESETS[kernel])})


@pytest.mark.parametrize("name", NAMES)
def test_what_tasks_see_is_what_the_seeds_say(station: Station, name: str) -> None:
    """Every seed of tasks and pokes, with what it expects, where its world is a kernel's, and what the model says."""
    semantics = PRESETS[station.kernel.name]
    run = next((run for run in fixed_runs(semantics, laboratory_of(semantics)) if run.name == name), None)
    if run is None:
        pytest.skip(f"{name} is not of {semantics.name}")

    assert take(run, station) >= 6


def test_an_operation_stands_between_two_writes_to_text(station: Station) -> None:
    """The site has int3 at two stops and the new instruction at the third; who needs ftrace's lock waits meanwhile."""
    semantics, guest = PRESETS[station.kernel.name], station.guest
    run = Linux(station, station.world, semantics)
    for line in ("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1"):
        assert Ok() == run.apply(parse_operation(line))
    address, architecture = Directory.of(station).address("foo1"), station.kernel.architecture
    place = (address, architecture.site_bytes)
    at = architecture.decode_site(address, guest.read_memory([place])[0]).address - address
    poke, seen = Poke(parse_operation("register_ftrace_function o1")), []
    for operation in (poke, PokeStep(), PokeStep()):
        assert Pending() == run.apply(operation)
        seen.append(guest.read_memory([place])[0][at:])
    batch = Batch()
    other = batch.write_file(f"{ROOT}/set_ftrace_filter", b"foo1")
    batch.in_thread(other, 63)
    waits = batch.join(63, 50)
    assert -errno.EINPROGRESS == guest.submit(batch)[waits].value

    assert Ok() == run.apply(Await(poke))
    assert [b"\xcc", b"\xcc", b"\xe8"] == [text[:1] for text in seen]
    assert 1 == len({text[1:] for text in seen[1:]})
    batch = Batch()
    waits = batch.join(63, 5000)
    assert guest.submit(batch)[waits].value > 0


def test_a_freed_program_ends_the_kernel(station: Station) -> None:
    """DEFECT-17: 6.x calls a program that it has freed, and is not asked to; a kernel that waits for tasks goes on."""
    semantics = PRESETS[station.kernel.name]
    lines = (
        *("bpf_prog_load p1 fentry",),
        *("bpf_raw_tracepoint_open l1 p1 foo1", "bpf_prog_load p3 fentry", "bpf_raw_tracepoint_open l3 p3 foo1"),
        *("task t1 foo1 1", "step t1 to=before:p3", "bpf_link_detach l1"),
    )
    # A worker frees the program behind the first one.
    rest = (*5 * ("grace_period rcu",), "finish t1")
    run = fixed_run("freed", station.world, semantics, [*lines, *rest])
    together = lockstep(station, station.world, semantics, asked=("DEFECT-17",))
    found = together.run(run.seed.steps)

    assert [one.aspect for one in found] == ([] if semantics.programs_wait_for_tasks else ["crash"])
    assert take(run, station) == (len(run.seed.steps) if semantics.programs_wait_for_tasks else len(lines) - 1)


def test_a_task_comes_to_a_program_while_it_is_detached(station: Station) -> None:
    """DEFECT-17: 6.x is not asked to let one that comes to the old image at a stop of the detach stand there."""
    semantics = PRESETS[station.kernel.name]
    detach = "poke bpf_link_detach l1"
    lines = (
        *("bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo1", "bpf_prog_load p3 fentry"),
        *("bpf_raw_tracepoint_open l3 p3 foo1", "task t1 foo1 1", f"{detach} -> pending"),
    )
    rest = ("step t1 to=before:p3", f"await {detach} -> 0", *5 * ("grace_period rcu",), "finish t1")
    run = fixed_run("freed", station.world, semantics, [*lines, *rest])

    assert take(run, station) == (len(run.seed.steps) if semantics.programs_wait_for_tasks else len(lines))


def test_an_image_is_freed_under_who_came_before(station: Station) -> None:
    """DEFECT-44: kernels free an image of fentry programs under a task that then sleeps, and are not asked to."""
    semantics = PRESETS[station.kernel.name]
    if station.kernel.name == "linux-6.1":
        pytest.skip("foo1 takes no sleepable program there")
    lines = (
        *("bpf_prog_load p1 fentry sleepable", "bpf_prog_load p2 fentry", "bpf_raw_tracepoint_open l1 p1 foo1"),
        *("task t1 foo1 1", "step t1 to=before:p1", "bpf_raw_tracepoint_open l2 p2 foo1"),
        *("grace_period rcu_tasks_trace", "step t1 to=program:p1 how=sleep", "grace_period rcu_tasks", "finish t1"),
    )
    run = fixed_run("freed", station.world, semantics, list(lines))
    found = lockstep(station, station.world, semantics, asked=("DEFECT-44",)).run(run.seed.steps)

    assert [one.aspect for one in found] == ["crash"]
    assert take(run, station) == 7


def test_a_detach_waits_where_the_kernel_does(station: Station) -> None:
    """What holds the first instruction of an image lets the last detach wait on 6.x, and is passed over on 7.3."""
    semantics = PRESETS[station.kernel.name]
    waits = not semantics.programs_wait_for_tasks
    detach = "bpf_link_detach l1"
    rest = (
        [f"{detach} -> pending", "site foo1 -> nop", "finish t1 -> fentry:p1 body =1", f"await {detach} -> 0"]
        if waits
        else [f"{detach} -> 0", "finish t1 -> body =1"]
    )

    run = fixed_run("last-detach", station.world, semantics, [*LAST_DETACH, *rest])

    assert take(run, station) == len(run.seed.steps)


def test_sites_are_seen_while_an_operation_has_the_locks(station: Station) -> None:
    """A direct ops has no trampoline of its own: beside another ops its site calls the common caller."""
    semantics = PRESETS[station.kernel.name]
    waits = not semantics.programs_wait_for_tasks
    lines = (
        *("bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo2", "task t1 foo2 1 2"),
        *("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1", "register_ftrace_function o1"),
        *("ftrace_ops o2", "ftrace_set_filter_ip o2 foo1", "register_ftrace_direct_multi o2 T1"),
        f"bpf_link_detach l1 -> {'pending' if waits else '0'}",
    )
    run = fixed_run("locked", station.world, semantics, [*lines, "finish t1"])

    assert take(run, station) == len(run.seed.steps)


def test_what_a_task_missed_counts_when_it_is_over(station: Station) -> None:
    """A program that calls the function that it is on is missed in that call; of a task's so when it has come home."""
    semantics = PRESETS[station.kernel.name]
    lines = (
        *("bpf_prog_load p1 fexit calls=foo1", "bpf_raw_tracepoint_open l1 p1 foo1", "task t1 foo1 1"),
        *("step t1 to=exit -> exit", "call foo1 1", "finish t1", "call foo1 1"),
    )
    run = fixed_run("missed", station.world, semantics, lines)

    assert take(run, station) == len(run.seed.steps)
