"""Which worlds a real kernel can be given, and which world and semantics belong to a kernel's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from properties.systems.naming import KERNELS, OWN_KERNEL
from spec.errors import BadInputError
from spec.laboratory import LABORATORIES, OWN, laboratory
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["HOOK_MARKS", "laboratory_of", "like_a_kernel", "made_for", "setting_of", "vmlinux_of", "without_own"]

MARKS = frozenset({"fmod_ret", "sleepable"})
HOOK_MARKS = frozenset({"lsm", "lsm_sleepable", "lsm_bool"})
"""Only functions of the kernel's own have these."""


def laboratory_of(semantics: Semantics) -> World:
    """The laboratory of the kernel whose semantics these are."""
    return laboratory(_laboratory_name(semantics.name))


def without_own(world: World) -> World:
    """A laboratory without its kernel's own functions, so that any kernel can be given it."""
    return World(world.name, tuple(function for function in world.functions if function.name not in OWN))


def like_a_kernel(world: World, semantics: Semantics) -> World:
    """A world as a kernel can be given it: if a module cannot mark its functions for fmod_ret there, none is marked.

    Nor is any of a module's functions a hook of LSM. Functions that extensions may replace are no kernel's, so they are
    those that a module of ours would hold.
    """
    made = any("freplace" in function.attributes for function in world.functions)
    if not made or semantics.name not in KERNELS:
        return world
    marks = HOOK_MARKS if laboratory_of(semantics).by_name["sleepy1"].attributes else HOOK_MARKS | MARKS
    unmarked = tuple(replace(f, attributes=f.attributes - marks) for f in world.functions)
    return replace(world, functions=unmarked)


def made_for(systems: Iterable[str], world: World, semantics: Semantics) -> World:
    """The world in which these systems, by their names, are run."""
    names = list(systems)
    if world.name in names:
        return vmlinux_of(world)
    if any(name.startswith(OWN_KERNEL) for name in names):
        return like_a_kernel(without_own(world) if world.name in LABORATORIES else world, semantics)
    return like_a_kernel(world, semantics) if set(names) & set(KERNELS) else world


def vmlinux_of(world: World) -> World:
    """A kernel's population without its modules, which no guest of ours loads."""
    functions, others = (tuple(f for f in kind if f.module is None) for kind in (world.functions, world.others))
    return World(world.name, functions, others)


def setting_of(systems: Sequence[str], semantics_of: Callable[[str], str]) -> tuple[str, str] | None:
    """The world and the semantics that belong to the one kernel among these systems; None if none is a kernel.

    semantics_of: tells whose rules a developer's own kernel follows, by the system's name.
    """
    kernels = list(dict.fromkeys(name for name in systems if name in KERNELS or name.startswith(OWN_KERNEL)))
    if len(kernels) > 1:
        raise BadInputError(f"{' and '.join(kernels)} differ in their rules: give one kernel at a time")
    if not kernels:
        return None
    semantics = kernels[0] if kernels[0] in KERNELS else semantics_of(kernels[0])
    return _laboratory_name(semantics), semantics


def _laboratory_name(kernel: str) -> str:
    return next(name for name, population in LABORATORIES.items() if population == kernel)
