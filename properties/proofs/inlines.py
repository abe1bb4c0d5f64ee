"""Proofs of helpers' code by their contracts: for every context, every index, and wherever the result is to go.

A contract takes for granted what a trampoline's obligations demand before a program runs, and no more: which words
there are at and below the context, and what ctx[-1] has beside the number of slots.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Final, Literal

from impl.batched.jit.inlines import BPF_CTX, HELPERS, Inline, assembled, inline, offered
from properties.prover.architecture import Architecture
from properties.prover.claims import Claim, disjoint, grounds, image_span, in_range, stack_span
from properties.prover.context import COOKIE_INDEX, COUNT_BITS, FUNCTION_IP, INDEX_BITS, IS_RETURN, META
from properties.prover.goal import KINDS, Kind
from properties.prover.image import Image
from properties.prover.machine import AccessRegion, FrameBounds, Machine
from properties.prover.obligations import Progress
from properties.prover.steps import CALLER
from properties.prover.terms import Value, add, concat, eq, extract, ite, lshr, shl, sub, symbol, ult, zext
from properties.prover.unknowns import defaults
from spec.abi import SLOT_BYTES
from spec.semantics import Semantics

__all__ = ["BPF_CTX_ADDRESS", "HelperCall", "calls", "image_of"]

CONTEXT_PLACE: Final = 1 << 32
"""The context's place. What the helper's other pointers point at is at multiples of it."""

OUT: Final = "*value"
RUN_CONTEXT: Final = "the run context"
COOKIE: Final = "its cookie"
ABOVE_COUNT: Final = "ctx[-1] above the number of slots"
BPF_CTX_ADDRESS: Final = 0xFFFF888123456780
"""Where the running task's pointer to its run context is."""

ADDRESS: Final = 0xFFFFFFFFC0010000
BEHIND: Final = b"\xcc" * 16


Named = Callable[[str, int], Value]
"""A machine's symbols: (name, bits) to a value."""


@dataclass(frozen=True, slots=True)
class HelperCall:
    """A Subject: a helper is called by a program of this kind, whose context has this many slots.

    metadata: ctx[-1] has more than that number. index_bits: how many bits of the argument n the caller sets, the others
    being 0; the helper's n has 32. function: the code ends in a return; otherwise it stands in a program.
    """

    helper: str
    kind: Kind
    slots: int
    metadata: bool = False
    index_bits: Literal[32, 64] = 32
    function: bool = True

    def claim(self, image: Image, architecture: Architecture) -> Claim:
        """See Claimant."""
        registers: dict[str, Value | None] = {
            name: symbol(name, 64) for name in (*architecture.general, *architecture.readable)
        }
        registers |= {flag: 0 if flag in architecture.convention.clear else None for flag in architecture.flags}
        if self.helper == "bpf_get_func_arg":
            registers[architecture.convention.arguments[1]] = zext(
                extract(symbol(architecture.convention.arguments[1], 64), 0, self.index_bits), 64
            )
        regions = tuple(self._list_regions(architecture))
        memory = {0: symbol(CALLER, 64)} if self.function else {}
        names = {str(region.base): region.base for region in regions if not isinstance(region.base, int)}
        spread = {name: architecture.kernel_stack[0] + (place + 1 << 30) for place, name in enumerate(names)}
        return Claim(
            demands=_Contract(self, architecture, image.end),
            frame=self._make_frame(regions),
            facts=partial(self._list_facts, image, architecture, regions),
            registers=registers,
            memory=memory | dict(self._list_words()),
            bindings={},
            symbols=defaults(architecture) | spread,
        )

    def _make_frame(self, regions: tuple[AccessRegion, ...]) -> FrameBounds:
        """Makes the frame. A function may read its return address, and what it pushes."""
        return FrameBounds(SLOT_BYTES if self.function else 0, regions)

    @property
    def sees_slot(self) -> bool:
        """Whether the return slot is behind the arguments: in a list behind the first, and for a session."""
        return self.kind != "fentry"

    def meta(self, named: Named) -> Value:
        """What is at ctx[-1]."""
        if not self.metadata:
            return self.slots
        return concat(named(ABOVE_COUNT, 64 - COUNT_BITS), self.slots, COUNT_BITS, 64)

    def out(self) -> int | None:
        """Which argument points at where a value goes; None if none does."""
        return {"bpf_get_func_arg": 2, "bpf_get_func_ret": 1}.get(self.helper)

    def _list_regions(self, architecture: Architecture) -> Iterator[AccessRegion]:
        below = FUNCTION_IP if self.helper == "bpf_get_func_ip" else META
        high = SLOT_BYTES * (self.slots + self.sees_slot)
        yield AccessRegion(symbol(architecture.convention.arguments[0], 64), CONTEXT_PLACE, below, high)
        out = self.out()
        if out is not None:
            base = symbol(architecture.convention.arguments[out], 64)
            yield AccessRegion(base, 2 * CONTEXT_PLACE, 0, SLOT_BYTES, load=False, store=True)
        if self.helper == "bpf_get_attach_cookie":
            yield AccessRegion(BPF_CTX_ADDRESS, 3 * CONTEXT_PLACE, 0, SLOT_BYTES)
            yield AccessRegion(symbol(RUN_CONTEXT, 64), 4 * CONTEXT_PLACE, 0, SLOT_BYTES)

    def _list_words(self) -> Iterator[tuple[int, Value]]:
        """Lists what is in the regions, by place."""
        yield CONTEXT_PLACE + META, self.meta(symbol)
        if self.helper == "bpf_get_func_ip":
            yield CONTEXT_PLACE + FUNCTION_IP, symbol("ctx[-2]", 64)
        for number in range(self.slots + self.sees_slot):
            yield CONTEXT_PLACE + SLOT_BYTES * number, symbol(_name_word(number), 64)
        if self.out() is not None:
            yield 2 * CONTEXT_PLACE, symbol(OUT, 64)
        if self.helper == "bpf_get_attach_cookie":
            yield 3 * CONTEXT_PLACE, symbol(RUN_CONTEXT, 64)
            yield 4 * CONTEXT_PLACE, symbol(COOKIE, 64)

    def _list_facts(
        self, image: Image, architecture: Architecture, regions: tuple[AccessRegion, ...]
    ) -> Iterator[Value]:
        """Lists the facts: stack, image and regions have no byte in common, and a context consists of aligned words."""
        yield from grounds(image, architecture, (CALLER,) if self.function else ())
        yield eq(extract(symbol(architecture.convention.arguments[0], 64), 0, 3), 0, 3)
        others = [stack_span(self._make_frame(regions), architecture), image_span(image)]
        for region in regions:
            span = region.base, region.low, region.high
            yield in_range(region.base, architecture.kernel_stack)
            yield from (disjoint(span, other) for other in others)
            others.append(span)


def calls(semantics: Semantics, slots: Iterable[int]) -> Iterator[tuple[Inline, HelperCall]]:
    """Every helper's code in one kernel, and its calls by programs of every kind that may ask it, for so many slots.

    An lsm program calls the function, which makes 32 bits of the index; others must have done so themselves.
    """
    numbers = tuple(slots)
    for helper, kind in product(HELPERS, KINDS):
        if not offered(helper, semantics, kind):
            continue
        code = inline(helper, semantics, kind)
        for count in numbers:
            yield code, HelperCall(helper, kind, count, semantics.fsession, 64 if kind == "lsm" else 32)


def image_of(code: Inline, *, function: bool = True) -> Image:
    """A helper's code at an address of our own, followed by an instruction that does not belong to it."""
    text = assembled(code, {BPF_CTX: BPF_CTX_ADDRESS}, function=function)
    return Image(ADDRESS, text + BEHIND, len(text))


def _name_word(number: int) -> str:
    return f"ctx[{number}]"


def _read_index(named: Named, architecture: Architecture) -> Value:
    """Reads the index that bpf_get_func_arg() is asked for, which has 32 bits in its prototype."""
    return extract(named(architecture.convention.arguments[1], 64), 0, 32)


def _answer_func_arg(call: HelperCall, named: Named, architecture: Architecture) -> Value:
    return ite(ult(_read_index(named, architecture), call.slots, 32), 0, -errno.EINVAL % (1 << 64), 64)


def _answer_func_ret(call: HelperCall, _: Named, __: Architecture) -> Value:
    return 0 if call.sees_slot else -errno.EOPNOTSUPP % (1 << 64)


def _answer_session_cookie(call: HelperCall, named: Named, architecture: Architecture) -> Value:
    index = extract(call.meta(named), COOKIE_INDEX, INDEX_BITS)
    return sub(named(architecture.convention.arguments[0], 64), shl(zext(index, 64), 3, 64), 64)


_RESULTS: Final[dict[str, tuple[str, Callable[[HelperCall, Named, Architecture], Value]]]] = {
    "bpf_get_func_ip": ("ctx[-2]", lambda _, named, __: named("ctx[-2]", 64)),
    "bpf_get_func_arg": ("0, or -EINVAL from the number of slots on", _answer_func_arg),
    "bpf_get_func_arg_cnt": ("the number of slots", lambda call, _, __: call.slots),
    "bpf_get_func_ret": ("0, or -EOPNOTSUPP where there is no return slot", _answer_func_ret),
    "bpf_get_attach_cookie": ("the run context's cookie", lambda _, named, __: named(COOKIE, 64)),
    "bpf_session_is_return": (
        "whether this is the return",
        lambda call, named, _: lshr(call.meta(named), IS_RETURN, 64),
    ),
    "bpf_session_cookie": ("where ctx[-1] says the cookie is", _answer_session_cookie),
}


def _expect_stored(call: HelperCall, named: Named, architecture: Architecture) -> Value:
    """States what is at `*value` in the end: the word asked for, or what was there if the helper fails."""
    stored = named(OUT, 64)
    if call.helper == "bpf_get_func_ret":
        return named(_name_word(call.slots), 64) if call.sees_slot else stored
    for number in range(call.slots):
        asked = eq(_read_index(named, architecture), number, 32)
        stored = ite(asked, named(_name_word(number), 64), stored, 64)
    return stored


class _Contract:
    """What must hold where a helper's code ends. end: the address behind it."""

    def __init__(self, call: HelperCall, architecture: Architecture, end: int) -> None:
        self._call = call
        self._architecture = architecture
        self._end = end

    def start(self) -> Progress:
        """See Demands."""
        return Progress(slots=self._call.slots)

    def skips(self, _: Machine, __: Progress, ___: int) -> bool:
        """See Demands; there is but one step."""
        return False

    def event(self, machine: Machine, _: Progress, target: Value) -> Progress | None:
        """See Demands."""
        architecture, call = self._architecture, self._call
        if call.function:
            machine.demand("it returns to its caller", eq(target, machine.symbol(CALLER, 64), 64))
        else:
            machine.demand("it ends behind its last instruction", eq(target, self._end, 64))
        for flag in architecture.convention.clear:
            machine.same(f"{flag} is clear", machine.register(flag), 0, 8)
        pointer = add(machine.symbol(architecture.convention.stack_pointer, 64), SLOT_BYTES * call.function, 64)
        machine.same(
            f"{architecture.convention.stack_pointer} is restored",
            machine.register(architecture.convention.stack_pointer),
            pointer,
        )
        for name in architecture.convention.preserved:
            machine.same(f"{name} is preserved", machine.register(name), machine.symbol(name, 64))
        text, expected = _RESULTS[call.helper]
        got = machine.register(architecture.convention.results[0])
        machine.same(f"the result is {text}", got, expected(call, machine.symbol, architecture))
        out = call.out()
        if out is not None:
            value = machine.word(machine.symbol(architecture.convention.arguments[out], 64))
            expected_value = _expect_stored(call, machine.symbol, architecture)
            machine.same("*value is the word asked for, or what it was", value, expected_value)
        return None
