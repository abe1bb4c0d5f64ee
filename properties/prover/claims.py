"""What is to be proved of some code, as the machines need it that run it: how it begins, what it may use, what holds.

A trampoline's goal is one subject; the code of a helper, or whatever else makes a task of itself, is another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from properties.prover.architecture import Architecture
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.machine import FRAME_BYTES, NEAR, Frame, Machine
from properties.prover.meaning import MODULUS
from properties.prover.obligations import Obligations, Progress
from properties.prover.steps import BODY, CALLER, COUNT
from properties.prover.terms import Term, Value, add, eq, extract, not_, one_of, sub, symbol, ult
from properties.prover.unknowns import defaults

__all__ = ["Claim", "Demands", "Subject", "claim_of", "disjoint", "grounds", "image_span", "in_range", "stack_span"]


class Demands(Protocol):
    """What must hold where control leaves the code; Obligations are a trampoline's."""

    def start(self) -> Progress:
        """Before the first instruction."""

    def event(self, machine: Machine, progress: Progress, target: Value) -> Progress | None:
        """Control is at `target`, outside the code. The progress when it is back; None at the end."""

    def skips(self, machine: Machine, progress: Progress, position: int) -> bool:
        """Whether all steps up to a position are plainly to be left out."""


@dataclass(frozen=True)
class Claim:
    """facts: of the symbols. registers, memory: their first values; memory by place, words of 8 bytes.

    A flag without a value is unknown. symbols: values for an execution that a counterexample does not ask for.
    """

    demands: Demands
    frame: Frame
    facts: tuple[Value, ...]
    registers: Mapping[str, Value | None]
    memory: Mapping[int, Value]
    bindings: Mapping[str, int]
    symbols: Mapping[str, int]
    patches: frozenset[str] = field(default=frozenset())


class Subject(Protocol):
    """Something to be proved of code that is no trampoline."""

    def claim(self, image: Image, architecture: Architecture) -> Claim:
        """Its claim, of terms made now."""


def claim_of(image: Image, subject: Goal | Subject, architecture: Architecture) -> Claim:
    """The task of whatever is to be proved of an image."""
    return (
        _claim_trampoline(image, subject, architecture)
        if isinstance(subject, Goal)
        else subject.claim(image, architecture)
    )


def _claim_trampoline(image: Image, goal: Goal, architecture: Architecture) -> Claim:
    obligations = Obligations(goal, architecture)
    places = defaults(architecture)
    return Claim(
        demands=obligations,
        frame=Frame(obligations.readable()),
        facts=tuple(_list_facts(image, goal, architecture)),
        registers=_list_registers(goal, architecture),
        memory=_list_words(goal, architecture, obligations),
        bindings=goal.known,
        symbols=places | {COUNT: goal.counts[0]} if goal.counts else places,
        patches=goal.patches,
    )


def _list_origins(goal: Goal) -> dict[str, Value]:
    return {"caller": symbol(CALLER, 64), "body": symbol(BODY, 64) if goal.shares_ipmodify else goal.body}


def _list_registers(goal: Goal, architecture: Architecture) -> dict[str, Value | None]:
    origins = _list_origins(goal)
    values: dict[str, Value | None] = {
        name: symbol(name, 64) for name in (*architecture.general, *architecture.readable)
    }
    values |= {name: origins[origin] for name, origin in architecture.entered(goal.site).registers.items()}
    return values | {flag: 0 if flag in architecture.convention.clear else None for flag in architecture.flags}


def _list_words(goal: Goal, architecture: Architecture, obligations: Obligations) -> dict[int, Value]:
    """Return addresses, and the function's arguments on the stack."""
    origins = _list_origins(goal)
    words = [origins[origin] for origin in architecture.entered(goal.site).words]
    count = (obligations.readable() - obligations.first_stack_argument()) // 8
    words += [symbol(f"stack argument {number}", 64) for number in range(count)]
    return {8 * number: word for number, word in enumerate(words)}


def _list_facts(image: Image, goal: Goal, architecture: Architecture) -> list[Value]:
    found = grounds(image, architecture, (CALLER, BODY) if goal.shares_ipmodify else (CALLER,))
    return [*found, one_of(symbol(COUNT, 64), goal.counts, 64)] if goal.lookup is not None else found


def grounds(image: Image, architecture: Architecture, returns: Iterable[str]) -> list[Value]:
    """What holds of the symbols: the stack pointer is aligned and in the kernel's range, return addresses in its text.

    No return address is in the image, and the stack is not near it.
    """
    top = symbol(architecture.convention.stack_pointer, 64)
    found = [_is_multiple(top, architecture.convention.stack_alignment), in_range(top, architecture.kernel_stack)]
    found.append(not_(ult(sub(top, image.address - NEAR, 64), image.used + 2 * NEAR, 64)))
    for name in returns:
        address = symbol(name, 64)
        found += [_is_multiple(address, architecture.code_alignment), in_range(address, architecture.kernel_text)]
        found.append(not_(ult(sub(address, image.address, 64), image.used, 64)))
    return found


def in_range(address: Value, span: tuple[int, int]) -> Value:
    """Whether an address is in [low, high)."""
    low, high = span
    return ult(sub(address, low, 64), high - low, 64)


def _is_multiple(address: Term, bytes_: int) -> Value:
    bits = bytes_.bit_length() - 1
    return eq(extract(address, 0, bits), 0, bits) if bits else 1


Span = tuple[Value, int, int]
"""An address, and which bytes from there on."""


def disjoint(one: Span, other: Span) -> Value:
    """Whether stretches of memory have no byte in common; there may be none between them."""
    (base, low, high), (second, second_low, second_high) = one, other
    distance = sub(add(base, low % MODULUS, 64), add(second, second_low % MODULUS, 64), 64)
    return not_(ult(add(distance, high - low - 1, 64), high - low + second_high - second_low - 1, 64))


def stack_span(frame: Frame, architecture: Architecture) -> Span:
    """All of the stack that code with this frame may use."""
    return symbol(architecture.convention.stack_pointer, 64), -FRAME_BYTES, frame.readable


def image_span(image: Image) -> Span:
    """An image, and what is near it."""
    return image.address, -NEAR, image.used + NEAR
