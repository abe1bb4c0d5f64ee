"""Bugs that few words show: cookies and return values that end where 32 bits or 64 do, arguments by their number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from impl.batched.jit import generate
from impl.batched.jit.isa import Isa
from impl.batched.jit.plan import ImagePlan
from impl.batched.jit.template import Template
from impl.batched.state import State
from impl.batched.targets import Targets
from impl.batched.trampolines import Trampolines
from impl.planted.planting import LARGE, Origin, Original, planted
from spec import operations as op
from spec.abi import SLOT_BYTES, Slot
from spec.worlds import Function

HALF: Final = 1 << 32
SIGN: Final = 1 << 63
HIGH: Final = (1 << 64) - HALF


def _attached(kind: str, arity: int) -> str:
    words = " ".join(map(str, range(1, arity + 1)))
    return f"""
    bpf_prog_load p1 {kind}
    bpf_raw_tracepoint_open l1 p1 foo{arity}
    call foo{arity} {words}
    """


def _count(plan: ImagePlan) -> int:
    """The context words of an image for one shape; 0 for all shapes."""
    return sum(-(-size // SLOT_BYTES) for size in plan.shape.arguments) if plan.shape else 0


def _with_slots(plan: ImagePlan, place: int, **wrong: Any) -> Template:
    """The template of an image that takes one slot from elsewhere."""
    right = generate._place_slots  # noqa: SLF001 a bug has no manners

    def misplace(plan: ImagePlan, isa: Isa) -> tuple[Slot, ...]:
        found = list(right(plan, isa))
        found[place] = replace(found[place], **wrong)
        return tuple(found)

    with patch.object(generate, "_place_slots", misplace):
        return generate.assembled(plan)


@planted(
    "machine.images.template",
    rule="ARG-2",
    origin="range",
    semantics="linux-6.12",
    minimal=_attached("fentry", 3),
)
def third_argument_of_three(original: Original, plan: ImagePlan) -> Template:
    """Of three arguments the third is taken from rcx."""
    return _with_slots(plan, 2, register="rcx") if _count(plan) == 3 else original(plan)


@planted(
    "machine.images.template",
    rule="ARG-2",
    origin="range",
    semantics="linux-6.1",
    minimal=_attached("fexit", 5),
)
def fifth_argument_of_five(original: Original, plan: ImagePlan) -> Template:
    """Of five arguments the fifth is taken from r9."""
    return _with_slots(plan, 4, register="r9") if _count(plan) == 5 else original(plan)


@planted(
    "machine.images.template",
    rule="ARG-2",
    origin="range",
    semantics="linux-6.12",
    minimal=_attached("fentry", 9),
)
def ninth_argument_lost(original: Original, plan: ImagePlan) -> Template:
    """Of nine arguments the last is read where the eighth lies."""
    return _with_slots(plan, 8, stack=1) if _count(plan) == 9 else original(plan)


@planted(
    "machine.images.template",
    rule="TRACE-2",
    origin="range",
    semantics="linux-7.3",
    minimal=_attached("fexit", 10),
)
def tenth_argument_not_passed_on(original: Original, plan: ImagePlan) -> Template:
    """Of ten arguments the last is not put on the stack again for the original."""
    if _count(plan) != 10:
        made: Template = original(plan)
        return made
    count = generate._count_stacked  # noqa: SLF001 a bug has no manners

    def forget(plan: ImagePlan, slots: tuple[Slot, ...]) -> int:
        return max(count(plan, slots) - 1, 0)

    with patch.object(generate, "_count_stacked", forget):
        return generate.assembled(plan)


@planted(
    "machine.images.template",
    rule="ARG-2",
    origin="range",
    semantics="linux-6.12",
    minimal=_attached("fmod_ret", 11),
)
def eleven_arguments_shifted(original: Original, plan: ImagePlan) -> Template:
    """Of eleven arguments the seventh is read one word too far up the stack."""
    return _with_slots(plan, 6, stack=1) if _count(plan) == 11 else original(plan)


@planted(
    "machine.images.template",
    rule="ARG-2",
    origin="range",
    semantics="linux-7.3",
    world=LARGE,
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 many14
    call many14 1 2 3 4 5 6 7 8 9 10 11
    """,
)
def second_struct_on_the_stack(original: Original, plan: ImagePlan) -> Template:
    """A second struct on the stack begins at its second word."""
    pairs = plan.shape.arguments.count(2 * SLOT_BYTES) if plan.shape else 0
    return _with_slots(plan, 7, stack=3) if pairs == 2 and _count(plan) > 8 else original(plan)


@planted(
    "machine.kernel.value",
    rule="ARG-5",
    origin=Origin(88, "fd2e08128944", "riscv, bpf: Sign extend struct ops return values properly"),
    semantics="linux-6.12",
    world=LARGE,
    minimal="call many15 1 2 3 4 5 6 7 -300",
)
def small_return_zero_extended(original: Original, function: Function, word: int) -> int:
    """A caller reads a return value that is smaller than a word and negative as a positive one."""
    prototype = function.prototype
    small = prototype is not None and prototype.returns.size < SLOT_BYTES
    found: int = prototype.returned(word) if prototype is not None and small else original(function, word)
    return found


@planted(
    "links.resolve",
    rule="LINK-15",
    origin="range",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_link_create l1 p1 foo1:4294967296
    """,
)
def cookies_of_a_batch_in_32_bits(original: Original, *arguments: Any) -> Targets:
    """A batch keeps 32 bits of each cookie."""
    where, cookies = original(*arguments)
    return Targets(where, cookies & np.uint64(HALF - 1))


@planted(
    "trampolines.Trampolines._remember",
    rule="IMAGE-1",
    origin="range",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 foo1 cookie=2147483648
    call foo1 1
    """,
)
def cookie_sign_extended(
    original: Original, trampolines: Trampolines, nodes: NDArray[np.int32], cookies: NDArray[np.uint64]
) -> None:
    """A cookie that fits into 32 bits is put into the image by an instruction that extends its sign."""
    negative = (cookies >= HALF // 2) & (cookies < HALF)
    original(trampolines, nodes, np.where(negative, cookies | np.uint64(HIGH), cookies))


@planted(
    op.BpfProgLoad,
    rule="TRAMP-3",
    origin="range",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fmod_ret returns=2147483648
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def return_sign_extended(original: Original, state: State, operation: op.BpfProgLoad) -> None:
    """A program that returns 32 bits with the highest set returns a negative word."""
    original(state, operation)
    program = state.programs[operation.prog]
    if HALF // 2 <= program.returns < HALF:
        program.returns |= HIGH


@planted(
    op.BpfProgLoad,
    rule="TRAMP-3",
    origin="range",
    semantics="linux-6.1",
    minimal="""
    bpf_prog_load p1 fmod_ret returns=9223372036854775808
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def only_the_sign_is_zero(original: Original, state: State, operation: op.BpfProgLoad) -> None:
    """A return value of the sign bit alone counts as 0, as twice it would be, so that the body runs."""
    original(state, operation)
    program = state.programs[operation.prog]
    if program.returns == SIGN:
        program.returns = 0
