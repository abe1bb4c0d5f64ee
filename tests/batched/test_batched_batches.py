"""Batches in `batched`: a failed one leaves no trace, images are shared exactly, and a function costs few bytes."""

from __future__ import annotations

import gc
import random
import tracemalloc

import numpy as np
import pytest

from impl.batched import Batched, generic, per_function, per_shape
from impl.batched.system import HANDLERS
from spec.alphabet import STOPPING
from spec.operations import Operation
from spec.outcomes import Errno, Ok
from spec.prototypes import Prototype
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.sharing import LEVELS, image_key
from spec.worlds import INT, LONG, PAIR, Function, World, synthetic
from tests.support.snapshots import programs, snapshot

MOST_BYTES = 64
SHAPES = [Prototype((LONG,) * count, LONG) for count in range(9)] + [Prototype((PAIR, INT), INT)]


def population(size: int) -> World:
    """A world of many functions of ten shapes, BTF ids in another order than addresses."""
    choose = random.Random(size)
    ids = choose.sample(range(1, size + 1), size)
    return World(
        "population",
        tuple(Function(f"f{number}", choose.choice(SHAPES), ids[number]) for number in range(size)),
    )


def carry_out(system: Batched, *lines: str) -> None:
    for line in lines:
        assert Ok() == system.apply(parse_operation(line)), line


def busy(level: str) -> Batched:
    """A system with links, ops, a graph user, a raw direct call and livepatches over the synthetic world."""
    system = Batched(synthetic(), PRESETS["linux-7.3"], level)
    carry_out(
        system,
        "bpf_prog_load p1 fentry multi",
        "bpf_prog_load p2 fexit multi",
        "bpf_prog_load p3 fsession multi",
        "bpf_prog_load p4 fexit multi",
        "bpf_link_create l1 p1 foo1 foo2 foo3:3 outer",
        "bpf_link_create l2 p2 foo2 foo3",
        "livepatch foo2",
        "livepatch foo9",
        "register_ftrace_graph g filter=foo*",
        "ftrace_ops o1",
        "ftrace_set_notrace o1 foo1",
        "register_ftrace_function o1",
        "ftrace_ops o2",
        "ftrace_set_filter_ip o2 foo8",
        "register_ftrace_direct_multi o2 T1",
    )
    return system


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("lines", "errno"),
    [
        (["bpf_link_create l3 p1 foo5 foo1 foo6"], "EBUSY"),
        (["bpf_link_create l3 p3 foo5 foo1 foo8"], "EINVAL"),
        (["bpf_link_create l3 p3 foo5 foo1 foo5"], "EINVAL"),
        (["bpf_link_create l3 p3 foo5 foo1 foo9"], "EAGAIN"),
        (["fail alloc", "bpf_link_create l3 p3 foo5 foo1 foo2"], "ENOMEM"),
        (["fail jit_charge 3", "bpf_link_create l3 p3 foo5 foo1 foo2"], "EPERM"),
        (["fail register 1", "bpf_link_create l3 p3 foo5 foo1 foo2"], "EBUSY"),
        (["fail register 2", "bpf_link_create l3 p3 foo5 foo1 foo2"], "EBUSY"),
        (["update_ftrace_direct_add o2 foo4=T1 foo1=T1"], "EINVAL"),
        (["update_ftrace_direct_add o2 foo4=T1 foo9=T1"], "EBUSY"),
        (["fail register", "update_ftrace_direct_mod o2 foo8=T2"], "EBUSY"),
        (["update_ftrace_direct_del o2 foo8=T2"], "EINVAL"),
        (["fail filter", "ftrace_set_filter o1 foo*"], "EINVAL"),
        (["fail register", "register_ftrace_graph h"], "EBUSY"),
        (["fail jit_charge", "livepatch foo3"], "EPERM"),
        (["fail register 2", "livepatch foo3"], "EBUSY"),
        (["livepatch foo8"], "EBUSY"),
        (["fail patch", "bpf_link_create l3 p4 foo5 foo1 foo2"], "ENODEV"),
    ],
)
def test_an_operation_that_fails_anywhere_leaves_no_trace(level: str, lines: list[str], errno: str) -> None:
    """FAIL-3, LINK-10: sites, costs, programs, traces and every entry are as before."""
    system = busy(level)
    before = snapshot(system)
    *faults, line = lines
    carry_out(system, *faults)
    outcome = system.apply(parse_operation(line))

    assert Errno(errno, warn="fail patch" in lines) == outcome
    assert before == snapshot(system)


def test_detaching_everything_gives_everything_back() -> None:
    """Links in any order of detaching leave no site, no entry, no class and no image."""
    for seed in range(5):
        system = per_shape(synthetic(), PRESETS["linux-7.3"])
        choose = random.Random(seed)
        for number in range(6):
            functions = " ".join(choose.sample([f"foo{index}" for index in range(13)], 7))
            carry_out(system, f"bpf_prog_load p{number} {choose.choice(['fentry', 'fexit', 'fsession'])} multi")
            carry_out(system, f"bpf_link_create l{number} p{number} {functions}")
        carry_out(system, *(f"bpf_link_detach l{number}" for number in choose.sample(range(6), 6)))

        assert {} == system.sites()
        assert 0 == system.cost().images_alive
        assert 0 == system.state.trampolines.sets.alive()
        assert not system.state.direct.entry.any()


@pytest.mark.parametrize("level", LEVELS)
def test_images_are_one_for_each_key_and_program_set(level: str) -> None:
    """COST-7: after each attach and detach as many images are alive as there are distinct keys and program lists."""
    world = population(400)
    system = Batched(world, PRESETS["linux-7.3"], level)
    choose = random.Random(11)
    names = [function.name for function in world.functions]
    keys = [image_key(level, function) for function in world.functions]
    operations = []
    for number in range(8):
        carry_out(system, f"bpf_prog_load p{number} {choose.choice(['fentry', 'fexit'])} multi")
        functions = " ".join(f"{name}:{choose.randint(0, 1)}" for name in choose.sample(names, 150))
        operations.append(f"bpf_link_create l{number} p{number} {functions}")
    operations += [f"bpf_link_detach l{number}" for number in choose.sample(range(8), 8)]
    for line in operations:
        carry_out(system, line)
        shown = programs(system)
        images = {(key, str(lists)) for key, lists in zip(keys, shown, strict=False) if any(lists)}

        assert len(images) == system.cost().images_alive


def test_sharing_builds_only_what_is_not_there() -> None:
    """COST-7: one batch over all shapes builds one image a shape, and a second link joins images that are alive."""
    world = population(400)
    shapes = len({function.prototype.shape for function in world.functions if function.prototype})
    system = per_shape(world, PRESETS["linux-7.3"])
    carry_out(system, "bpf_prog_load p1 fentry multi", "bpf_link_create l1 p1 f1*")
    first = system.cost().images_built
    carry_out(system, "bpf_link_create l2 p1 f2*")

    assert shapes == first == system.cost().images_built == system.cost().images_alive


def test_generic_serves_all_that_stay_in_registers_with_one_image() -> None:
    """The arities from 0 to 6 and the struct share; 7 and 8 arguments have one image each."""
    systems = [factory(population(400), PRESETS["linux-7.3"]) for factory in (per_function, per_shape, generic)]
    for system in systems:
        carry_out(system, "bpf_prog_load p1 fexit multi", "bpf_link_create l1 p1 *")

    assert [400, len(SHAPES), 3] == [system.cost().images_alive for system in systems]


def attach_all(world: World) -> Batched:
    system = per_function(world, PRESETS["linux-7.3"])
    carry_out(system, "bpf_prog_load p1 fentry multi", "bpf_link_create l1 p1 *")
    return system


def test_an_attached_function_takes_few_bytes() -> None:
    """A system over 20,000 functions with one batch link holds at most 64 bytes for each, the world's names aside."""
    world = population(20_000)
    attach_all(world)
    gc.collect()
    tracemalloc.start()
    try:
        system = attach_all(world)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    attached = np.count_nonzero(system.state.sites.count)

    assert len(world.functions) == attached
    assert MOST_BYTES >= size / attached


def test_patching_goes_in_rounds_of_256_sites() -> None:
    """COST-2, COST-3: a first link patches each site once; a second changes entries in two passes."""
    world = population(1_000)
    system = attach_all(world)

    assert (1_000, 4) == (system.cost().sites_patched, system.cost().poke_rounds)

    carry_out(system, "bpf_prog_load p2 fexit multi", "bpf_link_create l2 p2 *")

    assert (3_000, 12) == (system.cost().sites_patched, system.cost().poke_rounds)


def test_every_operation_of_the_alphabet_is_supported() -> None:
    """What a system supports it also carries out: each operation has its function, but those on tasks."""
    for semantics in PRESETS.values():
        system = per_function(synthetic(), semantics)
        observed: set[type[Operation]] = {type(parse_operation(line)) for line in ("call foo1 1", "site foo1")}

        assert system.supports - observed - STOPPING <= set(HANDLERS)
