"""Seeds in other worlds than a laboratory, on the kernels whose rules they name: what people met, as they met it."""

from __future__ import annotations

import pytest
from rich.console import Console

from properties.runs.corpus import SEEDS
from properties.systems.naming import resolve
from properties.verbs.replay import replay
from spec.errors import BadInputError
from spec.seeds import read_seed
from tests.support.stations import kernel_or_skip

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
