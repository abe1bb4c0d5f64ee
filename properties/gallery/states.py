"""Pictures of a system's state: which image each site calls, and which programs it has."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Final

import numpy as np

from impl.batched import Batched
from model.system import Model
from properties.report.pictures import CalledTarget, CallingFunction, Picture, StateFrame
from spec import capabilities
from spec.operations import Call, Finish, ObserveSite, Operation
from spec.operations import Step as TaskStep
from spec.seeds import Step, print_operation
from spec.sharing import image_key
from spec.sites import Site
from spec.system import System
from spec.worlds import Function, World

__all__ = ["Drawer", "frames", "take"]

Cookies = frozenset[tuple[str, int]]
"""Of an image's programs, by their names."""

MOST_ALIKE: Final = 3
"""So many functions that are alike stand for themselves where there are many."""

MOST: Final = 12
TRAMPOLINE: Final = "trampoline:"
KINDS: Final = {"direct": "direct", "ops": "ops"}


@dataclass
class Drawer:
    """Draws the states of one run. level: of sharing. State: the functions it spoke of, and the images by number."""

    world: World
    level: str
    spoken_of: set[str] = field(default_factory=set)
    numbers: dict[Hashable, int] = field(default_factory=dict)

    def hear(self, operation: Operation) -> None:
        """The functions that an operation names stand in every picture from now on."""
        words = print_operation(operation).replace("=", " ").replace(":", " ").split()
        self.spoken_of.update(word for word in words if word in self.world.by_name)

    def draw(self, system: System) -> Picture:
        """The state of a system."""
        sites = system.sites()
        self.spoken_of.update(sites)
        if len(self.spoken_of) > len(self.world.functions) // 2:
            shown = [function for function in self.world.functions if function.name in self.spoken_of]
        else:
            shown = sorted((self.world.by_name[name] for name in self.spoken_of), key=self._place)
        callees: dict[Hashable, CalledTarget] = {}
        callers = [self._draw_caller(function, sites.get(function.name), system, callees) for function in shown]
        return Picture(tuple(_gather(callers)), tuple(callees.values()), self._count_alive(system))

    def _count_alive(self, system: System) -> int:
        inner = getattr(system, "inner", system)
        return inner.images(self.level) if isinstance(inner, Model) else system.cost().images_alive

    def _place(self, function: Function) -> int:
        return _places(self.world)[function.name]

    def _draw_caller(
        self, function: Function, site: Site | None, system: System, callees: dict[Hashable, CalledTarget]
    ) -> CallingFunction:
        if site is None:
            return CallingFunction(function.name, None, site="nop")
        callee = self._find(site.target, function, system, callees)
        behind = None
        if site.entry and site.entry != site.target:
            behind = self._find(site.entry, function, system, callees)
        return CallingFunction(function.name, callee, behind, str(site))

    def _find(self, target: str, function: Function, system: System, callees: dict[Hashable, CalledTarget]) -> int:
        """The place of what a site calls among the callees, to which it is added."""
        if not target.startswith(TRAMPOLINE):
            kind = KINDS.get(target.partition(":")[0], "caller")
            callees.setdefault(target, CalledTarget(target, kind))  # type: ignore[arg-type]
            return list(callees).index(target)
        content = target, image_key(self.level, function), _cookies(system, function)
        key = _address(system, function) or content
        if key not in callees:
            name = f"TRAMPOLINE{self.numbers.setdefault(content, len(self.numbers) + 1)}"
            while name in {callee.name for callee in callees.values()}:
                name += "′"  # another image that is the same
            programs = tuple(target.removeprefix(TRAMPOLINE).split(","))
            served = _served(self.level, function) + _tell_cookies(content[2])
            callees[key] = CalledTarget(name, "trampoline", programs, served)
        return list(callees).index(key)


def take(system: System, operation: Operation) -> str:
    """Carry an operation out, whichever method it takes, and return what is observed."""
    if isinstance(operation, Call):
        return str(system.call(operation.function, operation.arguments))
    if isinstance(operation, TaskStep):
        return capabilities.step(system, operation)
    if isinstance(operation, Finish):
        return str(capabilities.finish(system, operation))
    if isinstance(operation, ObserveSite):
        site = system.sites().get(operation.function)
        return "nop" if site is None else site.target
    return str(system.apply(operation))


def frames(system: System, drawer: Drawer, steps: Iterable[Step]) -> Iterator[StateFrame]:
    """The states of a run, one for each group of steps that ends in a change of sites."""
    before, group = drawer.draw(system), list[str]()
    for step in steps:
        drawer.hear(step.operation)
        group.append(f"{print_operation(step.operation)} -> {take(system, step.operation)}")
        after = drawer.draw(system)
        if _calls(after) != _calls(before):
            yield StateFrame("", tuple(group), after)
            before, group = after, []
    if group:
        yield StateFrame("", tuple(group), before)


def _calls(picture: Picture) -> list[object]:
    """What is called, of those that call something."""
    return [caller for caller in picture.callers if caller.callee is not None]


@cache
def _places(world: World) -> dict[str, int]:
    return {function.name: place for place, function in enumerate(world.functions)}


def _served(level: str, function: Function) -> str:
    """Which functions an image may serve besides this one."""
    prototype = function.prototype
    if level == "per_function" or prototype is None:
        return f"of {function.name} alone"
    if level == "generic" and prototype.in_registers:
        return "for 0 to 6 arguments"
    sizes = ", ".join(map(str, prototype.shape.arguments))
    return f"for arguments of ({sizes}) bytes" if sizes else "for no argument"


def _batched(system: System) -> Batched | None:
    """The system, if it is `batched`, of which more can be seen than of others."""
    inner = getattr(system, "inner", system)
    return inner if isinstance(inner, Batched) else None


def _address(system: System, function: Function) -> int | None:
    """Where a function's image is, in a system that has them in memory."""
    batched = _batched(system)
    return None if batched is None else batched.text.image(batched.state.functions.index(function.name))[0]


def _tell_cookies(cookies: Cookies) -> str:
    given = ", ".join(f"{program} {cookie}" for program, cookie in sorted(cookies) if cookie)
    return f"; cookie {given}" if given else ""


def _cookies(system: System, function: Function) -> Cookies:
    """The cookies of an image's programs, by program: images that differ in them are not the same."""
    batched, inner = _batched(system), getattr(system, "inner", system)
    if isinstance(inner, Model) and function.name in inner.state.images:
        return frozenset((node.program.prog, node.cookie) for node in inner.state.images[function.name].nodes)
    if batched is None:
        return frozenset()
    state, trampolines = batched.state, batched.state.trampolines
    made_of = int(trampolines.images(np.array([state.functions.index(function.name)]))[0])
    programs = trampolines.sets.node_program
    return frozenset(
        (state.program_numbered[int(programs[node])].name, int(trampolines.cookies[node]))
        for node in trampolines.sets.row(made_of)
    )


def _gather(callers: list[CallingFunction]) -> Iterator[CallingFunction]:
    """Functions as they are, or, where there are many, those that are alike together."""
    if len(callers) <= MOST:
        yield from callers
        return

    def likeness(caller: CallingFunction) -> tuple[object, ...]:
        return -1 if caller.callee is None else caller.callee, caller.behind or -1, caller.site

    for _, group in groupby(sorted(callers, key=likeness), likeness):
        alike = list(group)
        if len(alike) <= MOST_ALIKE:
            yield from alike
        else:
            one = alike[0]
            yield CallingFunction(f"{one.name} … {alike[-1].name}", one.callee, one.behind, one.site, len(alike))
