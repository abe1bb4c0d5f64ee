"""Seeds in other worlds than a laboratory, on the kernels whose rules they name: what people met, as they met it."""

from __future__ import annotations

import pytest
from rich.console import Console

from impl import linux
from impl.linux.system import Linux
from properties.lockstep.lockstep import Lockstep
from properties.runs.corpus import SEEDS, fixed_run
from properties.systems.naming import resolve
from properties.verbs.replay import replay
from spec.border import bordered
from spec.costs import POKE_BATCH
from spec.errors import BadInputError
from spec.prototypes import Prototype
from spec.seeds import read_seed
from spec.semantics import PRESETS, Semantics
from spec.system import System
from spec.worlds import LONG, Function, World
from tests.support.stations import KERNELS, kernel_or_skip

pytestmark = pytest.mark.vm


@pytest.mark.parametrize(
    "name",
    [
        "bpf-gets-the-first-symbol",
        "libbpf-knows-no-sites",
        "first-symbol-without-site",
        "module-shadows-vmlinux",
        "one-link-one-btf",
        "one-program-one-btf",
        "detach-without-memory",
        "graph-task-is-not-silent-for-ever",
    ],
)
def test_a_kernel_does_what_the_seed_says(name: str) -> None:
    """A kernel's population, a symbol of two modules, links over two BTFs, what meets no memory, an unfiltered user."""
    path = SEEDS / f"{name}.seed"
    seed = read_seed(path)
    kernel_or_skip(seed.semantics)
    console = Console(record=True, width=200)

    assert replay(path, {seed.semantics: resolve(seed.semantics)}, console) == 0
    assert f"{len(seed.steps)} steps, all agree" in console.export_text()


def test_text_of_modules_is_not_patched_without_a_site() -> None:
    """BPF would say -EINVAL there, and says -EBUSY of the kernel's own text (LINK-16)."""
    path = SEEDS / "bpf-names-what-has-no-site.seed"
    kernel = read_seed(path).semantics
    kernel_or_skip(kernel)

    with pytest.raises(BadInputError, match="has this function in a module, where BPF patches no text"):
        replay(path, {kernel: resolve(kernel)}, Console(quiet=True))


@pytest.mark.parametrize("name", KERNELS)
def test_a_batch_is_patched_after_the_other(name: str) -> None:
    """POKE-1: an operation stops three times for each 256 sites; those that it has yet to come to do as before."""
    kernel, semantics = kernel_or_skip(name), PRESETS[name]
    functions = tuple(Function(f"f{n}", Prototype((LONG,), LONG), n) for n in range(1, POKE_BATCH + 21))
    world = World("batches", functions)
    last, first = (f"call f{n} 1 -> {{}} =1" for n in (POKE_BATCH, POKE_BATCH + 1))
    comes, goes = "poke register_ftrace_function o1", "poke unregister_ftrace_function o1"
    lines = [
        *("ftrace_ops o1", f"ftrace_set_filter_ips o1 {' '.join(function.name for function in functions)}"),
        *(f"{comes} -> pending", "poke_step -> pending", "poke_step -> pending"),
        *(last.format("ops:o1 body"), first.format("body"), "poke_step -> pending"),
        *(last.format("ops:o1 body"), first.format("ops:o1 body"), f"await {comes} -> 0"),
        *(f"{goes} -> pending", last.format("body"), first.format("ops:o1 body")),
        *(*5 * ("poke_step -> pending",), first.format("body"), "poke_step -> 0"),
    ]

    def make(world: World, semantics: Semantics) -> System:
        return bordered(Linux(linux.station_of(kernel, world), world, semantics), world, semantics)

    try:
        together = Lockstep(world, semantics, [make])
        assert () == together.run(fixed_run("batches", world, semantics, lines).seed.steps)
        assert () == together.undo(settle=True) + together.close()
    finally:
        linux.close()
