"""What is freed behind grace periods while tasks stand in calls: images and programs (TASK-8 to TASK-10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from impl.batched.machine.images import Pieces
from impl.batched.machine.text import Text
from impl.batched.state import Program, State
from spec.semantics import Semantics

__all__ = ["Lifetimes"]

OPERATION: Final = "the operation that puts it"
REFERENCES: Final = "tasks between __bpf_tramp_enter and __bpf_tramp_exit"
IMAGES: Final = "the images that had it when it was detached"


@dataclass(eq=False, slots=True)
class Doomed:
    """An image or a program that goes when all that it waits for is over, one after the other.

    place, size: of an image in the arena. program: a program's number, else 0. behind: the images that IMAGES means.
    """

    waits: list[str]
    place: int = 0
    size: int = 0
    program: int = 0
    behind: tuple[Doomed, ...] = field(default=(), repr=False)


def image_waits(calls_original: bool) -> list[str]:
    """bpf_tramp_image_put(): what an image waits for.

    Tasks before __bpf_tramp_enter, then those that it counts, then those behind __bpf_tramp_exit; without a call of the
    original those before programs, then those that may sleep in one, then those behind. The kernel does not wait for
    the first of these, which may go on to sleep in a program when rcu_tasks_trace is over.
    """
    return ["rcu_tasks", REFERENCES if calls_original else "rcu_tasks_trace", "rcu_tasks"]


def program_waits(facts: Semantics, program: Program) -> list[str]:
    """What a program waits for that no link holds: tasks that are on their way to it, then those in it."""
    reaching = "rcu_tasks" if facts.programs_wait_for_tasks else IMAGES
    return [reaching, "rcu_tasks_trace" if program.sleepable else "rcu"]


class Lifetimes:
    """unload: frees a program's code. references: how many tasks an image counts."""

    def __init__(
        self, state: State, text: Text, unload: Callable[[int], None], references: Callable[[int], int]
    ) -> None:
        self._state, self._text = state, text
        self._unload, self._references = unload, references
        self._doomed: list[Doomed] = []

    def put(self, pieces: Pieces) -> None:
        """Images that no site calls any more; `proceed` tells when the operation is over that put them."""
        for place, size, calls in zip(*(column.tolist() for column in pieces), strict=True):
            self._doomed.append(Doomed([OPERATION, *image_waits(calls)], place, size))

    def drop(self, program: Program) -> None:
        """A program that no link holds any more."""
        images = tuple(doomed for doomed in self._doomed if not doomed.program)
        waits = [OPERATION, *program_waits(self._state.facts, program)]
        self._doomed.append(Doomed(waits, program=program.number, behind=images))

    def proceed(self) -> set[int]:
        """The operation is over; returns the places of the images that it put."""
        own = [doomed for doomed in self._doomed if doomed.waits[:1] == [OPERATION]]
        for doomed in own:
            doomed.waits.pop(0)
        self.settle()
        return {doomed.place for doomed in own if not doomed.program}

    def elapse(self, flavour: str) -> None:
        """A grace period is over, for those that waited for it."""
        for doomed in self._doomed:
            if doomed.waits[:1] == [flavour]:
                doomed.waits.pop(0)
        self.settle()

    def settle(self) -> None:
        """Free what waits for nothing any more."""
        before = -1
        while before != len(self._doomed):
            before = len(self._doomed)
            for doomed in tuple(self._doomed):
                while doomed.waits and self._is_over(doomed):
                    doomed.waits.pop(0)
                if not doomed.waits or self._is_held(doomed):
                    self._doomed.remove(doomed)
                    self._free(doomed)

    def end(self) -> None:
        """No task is left: every grace period is over."""
        for doomed in self._doomed:
            doomed.waits.clear()
        self.settle()

    def _is_over(self, doomed: Doomed) -> bool:
        if doomed.waits[0] == REFERENCES:
            return not self._references(doomed.place)
        return doomed.waits[0] == IMAGES and not any(image in self._doomed for image in doomed.behind)

    def _is_held(self, doomed: Doomed) -> bool:
        """Whether a link holds a program again."""
        return bool(doomed.program and self._state.program_numbered[doomed.program].links)

    def _free(self, doomed: Doomed) -> None:
        if not doomed.program:
            where, size = np.array([doomed.place], np.int64), np.array([doomed.size], np.int64)
            self._text.free(Pieces(where, size, np.zeros(1, np.bool_)))
        elif not self._is_held(doomed):
            self._unload(doomed.program)
