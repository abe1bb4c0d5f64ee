"""What a kernel does not free is found once all is undone and settled; one that frees everything leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from impl import linux
from impl.linux.observation import KernelComplaintError
from impl.linux.station import Station
from impl.linux.system import Linux
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.mutants.subject import TELLS_OBJECTS
from properties.runs.hundreds import wide
from properties.systems.kernels import like_a_kernel
from spec.border import bordered
from spec.outcomes import Ok
from spec.seeds import parse_operation, parse_seed
from spec.semantics import PRESETS
from spec.system import System
from spec.worlds import World, synthetic
from tests.support.stations import KERNELS, kernel_or_skip

pytestmark = pytest.mark.vm

RETURN = b"\xc3"
ALL = """bpf_prog_load p1 fexit
bpf_prog_load p2 fentry target=foo2
bpf_raw_tracepoint_open l1 p1 foo1
bpf_raw_tracepoint_open l2 p2
bpf_raw_tracepoint_open l3 p1 foo2
call foo2 1 2
settle
call foo2 1 2
ftrace_ops o1 dynamic
ftrace_set_filter_ips o1 foo1 foo2 foo3
register_ftrace_function o1
livepatch foo2
register_ftrace_graph g filter=foo1
unlivepatch foo2
"""


@pytest.fixture(params=KERNELS)
def station(request: pytest.FixtureRequest) -> Iterator[Station]:
    """A kernel with the functions of the synthetic world."""
    yield linux.station_of(kernel_or_skip(request.param), synthetic())
    linux.close()


def left_by(station: Station, lines: str) -> list[Divergence]:
    """What is found at the end of a run."""
    semantics = PRESETS[station.kernel.name]

    def make(world: World, _: object) -> System:
        return bordered(Linux(station, world, semantics), world, semantics)

    run = Lockstep(synthetic(), semantics, [make])
    steps = parse_seed(f"world synthetic\nsemantics {semantics.name}\n---\n{lines}").steps
    assert (run.run(steps) or run.undo(settle=True)) == ()
    return list(run.close())


def test_what_is_not_freed_is_found(station: Station) -> None:
    """Nothing is left of a run; of one that never uncharges memory of the JIT, just that is; or all of an image."""
    assert [] == left_by(station, ALL)

    station.guest.change([(station.symbols.address("bpf_jit_uncharge_modmem"), RETURN)])
    (found,) = left_by(station, ALL)
    assert ("leak", "settle", "nothing is left over") == (found.aspect, found.step, found.expected)
    assert found.observed.endswith(" bytes of JIT memory")

    station.guest.change([(station.symbols.address("__bpf_tramp_image_put_deferred"), RETURN)])
    (found,) = left_by(station, ALL)
    assert "in kallsyms: bpf_trampoline_" in found.observed
    assert " bytes of JIT memory" in found.observed


@pytest.mark.parametrize("name", KERNELS)
def test_images_that_are_not_freed_are_found(name: str) -> None:
    """Where one can wait for kfree_rcu(), and the kernel tells who allocates; nothing else is left."""
    observed = linux.station_of(replace(kernel_or_skip(name), parameters=TELLS_OBJECTS), synthetic())
    waits = bool(observed.symbols.addresses("kvfree_rcu_barrier"))
    assert [] == left_by(observed, ALL)

    observed.guest.change([(observed.symbols.address("kvfree_call_rcu"), RETURN)])
    found = [divergence.observed for divergence in left_by(observed, ALL)]
    assert waits == any("allocated by bpf_tramp" in each for each in found)
    linux.close()


def test_a_context_that_stays_is_found(station: Station) -> None:
    """A call leaves the task that made it without the context of a program."""
    semantics = PRESETS[station.kernel.name]
    system = Linux(station, synthetic(), semantics)
    for line in ("bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo1"):
        assert Ok() == system.apply(parse_operation(line))
    system.call("foo1", (1,))

    station.guest.poke(station.run_context, b"\x01")
    with pytest.raises(KernelComplaintError, match="has the context of a program, and runs none"):
        system.call("foo2", (1, 2))


def test_records_and_their_pages_are_counted(station: Station) -> None:
    """A module that comes and goes leaves as many as there were; more of them are told."""
    assert [] == left_by(station, "delete_module mod1\ninit_module mod1\n")

    before = station.holding.read()
    more = replace(before, records={name: number + 2 for name, number in before.records.items()})
    assert "+2 groups of pages of records\n+2 pages of records\n+2 records" == more.beyond(before)
    assert min(before.records.values()) > 0


@pytest.mark.parametrize(("count", "lost"), [(129, 0), (130, 1), (258, 2), (514, 3)])
def test_tables_of_direct_calls_are_lost_in_one_call(count: int, lost: int) -> None:
    """DEFECT-33, as the kernel tells of who allocated; each table has buckets, which are counted with it here."""
    kernel = replace(
        kernel_or_skip("linux-6.1"), parameters="slub_debug=U,kmalloc-64,kmalloc-256,kmalloc-512,kmalloc-1k"
    )
    semantics = PRESETS["linux-6.1"]
    world = like_a_kernel(wide(), semantics)
    crowded = linux.station_of(kernel, world)
    system = bordered(Linux(crowded, world, semantics), world, semantics)
    names = " ".join(f"wide{number}" for number in range(1, count + 1))
    for line in (
        *("ftrace_ops o1", f"ftrace_set_filter_ips o1 {names}"),
        *("register_ftrace_direct_multi o1 T1", "unregister_ftrace_direct_multi o1 T1"),
    ):
        assert Ok() == system.apply(parse_operation(line))

    assert "" == system.left_over()
    assert crowded.left_over() == (f"+{2 * lost} allocated by alloc_ftrace_hash" if lost else "")
