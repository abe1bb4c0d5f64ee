"""The laboratories: worlds that a running kernel can be given."""

from __future__ import annotations

import pytest

from spec.laboratory import HOOKS, LABORATORIES, laboratory
from spec.worlds import synthetic


@pytest.mark.parametrize("name", LABORATORIES)
def test_a_laboratory_holds_the_synthetic_world(name: str) -> None:
    """Every function of the synthetic world is there, in the same order, with its prototype, module and callees."""
    world = laboratory(name)
    seen = [(f.name, f.prototype, f.module, f.callees) for f in world.functions if f.name in synthetic().by_name]

    assert [(f.name, f.prototype, f.module, f.callees) for f in synthetic().functions] == seen
    assert len(world.functions) == len(world.by_name)


@pytest.mark.parametrize("name", LABORATORIES)
def test_each_reason_to_refuse_has_a_function(name: str) -> None:
    """Functions that are noreturn, not describable or unknown to BTF are among the kernel's own."""
    world = laboratory(name)
    prototypes = [function.prototype for function in world.functions if function.prototype]

    assert any("noreturn" in function.attributes for function in world.functions)
    assert any(function.btf_id is None for function in world.functions)
    assert any(prototype.variadic for prototype in prototypes)
    assert any(not prototype.describable and not prototype.variadic for prototype in prototypes)


def test_sets_are_marked_where_the_kernel_has_them() -> None:
    """A module's functions can be fmod_ret and sleepable since 6.2; those named security_ are fmod_ret everywhere."""
    assert laboratory("laboratory-6.1").by_name["sleepy1"].attributes == frozenset()
    assert laboratory("laboratory-6.12").by_name["sleepy1"].attributes == {"fmod_ret", "sleepable"}
    assert all(laboratory(name).by_name["security_lab1"].attributes == {"fmod_ret"} for name in LABORATORIES)


@pytest.mark.parametrize("name", LABORATORIES)
def test_hooks_of_every_kind_can_be_called(name: str) -> None:
    """Hooks that return something, or nothing, that may sleep or not, and one that is disabled, have empty bodies."""
    hooks = [laboratory(name).by_name[hook] for hook in HOOKS]
    kinds = {(f.prototype.returns.kind, "lsm_sleepable" in f.attributes) for f in hooks if f.prototype}

    assert {("INT", False), ("INT", True), ("VOID", False), ("VOID", True)} == kinds
    assert all("empty" in hook.attributes for hook in hooks)
    assert {True, False} == {"lsm" in hook.attributes for hook in hooks}
    assert any("lsm_bool" in hook.attributes for hook in hooks)
