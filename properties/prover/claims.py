"""A claim is what a machine must know to run some code and judge it: how it begins, what it may use, what must hold.

A trampoline's goal makes one claim, the code of a helper another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Final, Protocol

from properties.prover.architecture import Architecture
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.machine import FRAME_BYTES, NEAR, AccessRegion, FrameBounds, Machine
from properties.prover.meaning import MODULUS
from properties.prover.obligations import Obligations, Progress
from properties.prover.steps import BODY, CALLER, COUNT
from properties.prover.terms import Facts, Term, Value, add, eq, extract, not_, one_of, sub, symbol, ult
from properties.prover.unknowns import defaults
from properties.prover.written import Written, stack_bytes
from spec.abi import SLOT_BYTES

__all__ = ["Claim", "Claimant", "Demands", "claim_of", "disjoint", "grounds", "image_span", "in_range", "stack_span"]


class Demands(Protocol):
    """What must hold where control leaves the code. Those of a trampoline are Obligations."""

    def start(self) -> Progress:
        """Before the first instruction."""

    def event(self, machine: Machine, progress: Progress, target: Value) -> Progress | None:
        """Judges a step: control is at `target`, outside the code. The progress when it is back; None at the end."""

    def skips(self, machine: Machine, progress: Progress, position: int) -> bool:
        """Whether all steps up to a position are plainly to be left out."""


@dataclass(frozen=True)
class Claim:
    """How code begins, and what is demanded of it.

    facts: tells what holds of the symbols. registers, memory: first values. Memory has words of 8 bytes by their place,
    and a flag without a value is unknown. symbols: values in an execution, where the counterexample gives none.
    """

    demands: Demands
    frame: FrameBounds
    facts: Facts
    registers: Mapping[str, Value | None]
    memory: Mapping[int, Value]
    bindings: Mapping[str, int]
    symbols: Mapping[str, int]
    patches: frozenset[str] = field(default=frozenset())

    @property
    def written(self) -> Written:
        """The bytes of the stack that are written when the code begins."""
        return Written(reduce(or_, (stack_bytes(place, place + SLOT_BYTES) for place in self.memory), 0))


class Claimant(Protocol):
    """Something to be proved of code that is no trampoline."""

    def claim(self, image: Image, architecture: Architecture) -> Claim:
        """Makes its claim, of new terms."""


def claim_of(image: Image, claimant: Goal | Claimant, architecture: Architecture) -> Claim:
    """The claim of whatever is to be proved of an image."""
    return (
        _claim_trampoline(image, claimant, architecture)
        if isinstance(claimant, Goal)
        else claimant.claim(image, architecture)
    )


def _claim_trampoline(image: Image, goal: Goal, architecture: Architecture) -> Claim:
    obligations = Obligations(goal, architecture)
    places = defaults(architecture)
    counters = dict(_list_regions(goal, architecture))
    frame = FrameBounds(obligations.readable(), tuple(counters.values()))
    apart = [stack_span(frame, architecture), image_span(image)]
    words = {one.place: symbol(name, 64) for name, one in counters.items()}
    return Claim(
        demands=obligations,
        frame=frame,
        facts=lambda: [
            *_list_facts(image, goal, architecture),
            *(disjoint((one.base, one.low, one.high), other) for one in frame.regions for other in apart),
        ],
        registers=_list_registers(goal, architecture),
        memory=_list_words(goal, architecture, obligations) | words,
        bindings=goal.known,
        symbols=places | {COUNT: goal.counts[0]} if goal.counts else places,
        patches=goal.patches,
    )


def _list_regions(goal: Goal, architecture: Architecture) -> Iterator[tuple[str, AccessRegion]]:
    """Lists the counters of calls, by name."""
    for number, (name, place) in enumerate(goal.counters.items(), 1):
        base = add(symbol(architecture.area, 64), place, 64)
        yield name, AccessRegion(base, number * COUNTER_PLACE, 0, SLOT_BYTES, store=True)


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
    """Lists the return addresses, and the function's arguments on the stack."""
    origins = _list_origins(goal)
    words = [origins[origin] for origin in architecture.entered(goal.site).words]
    count = (obligations.readable() - obligations.first_stack_argument()) // 8
    words += [symbol(f"stack argument {number}", 64) for number in range(count)]
    return {8 * number: word for number, word in enumerate(words)}


def _list_facts(image: Image, goal: Goal, architecture: Architecture) -> list[Value]:
    found = grounds(image, architecture, (CALLER, BODY) if goal.shares_ipmodify else (CALLER,))
    return [*found, one_of(symbol(COUNT, 64), goal.counts, 64)] if goal.lookup is not None else found


def grounds(image: Image, architecture: Architecture, returns: Iterable[str]) -> list[Value]:
    """Facts of the symbols: the stack pointer is aligned and in the kernel's range, return addresses in its text.

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


COUNTER_PLACE: Final = 1 << 32

Span = tuple[Value, int, int]
"""An address, and which bytes from there on."""


def disjoint(one: Span, other: Span) -> Value:
    """Whether two stretches of memory have no byte in common. They may adjoin."""
    (base, low, high), (second, second_low, second_high) = one, other
    distance = sub(add(base, low % MODULUS, 64), add(second, second_low % MODULUS, 64), 64)
    return not_(ult(add(distance, high - low - 1, 64), high - low + second_high - second_low - 1, 64))


def stack_span(frame: FrameBounds, architecture: Architecture) -> Span:
    """The stretch of the stack that code with this frame may use."""
    return symbol(architecture.convention.stack_pointer, 64), -FRAME_BYTES, frame.readable


def image_span(image: Image) -> Span:
    """An image, and what is near it."""
    return image.address, -NEAR, image.used + NEAR
