"""The generator: a plan is laid out, emitted as statements, assembled once, and checked by disassembling all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final

from impl.batched.jit import assembler
from impl.batched.jit.isa import MARK, Emitter, Instruction, Isa, Label, Layout, Statement
from impl.batched.jit.plan import ImagePlan, LinkRun
from impl.batched.jit.template import BitField, Hole, Skip, Template
from impl.batched.jit.x86_64 import X86_64
from spec.abi import SLOT_BYTES, Slot
from spec.errors import BadInputError

__all__ = ["assemble", "assembled", "layout", "statements", "template"]

RUN_CONTEXT_BYTES: Final = 16
IS_RETURN: Final = 1 << 63
COOKIE_INDEX: Final = 8
AFTER_CALL: Final = "after call"
EPILOGUE: Final = "epilogue"
ENTER: Final = "enter"
RETURNED: Final = "returned"
EXITED: Final = "exited"
FEXIT: Final = "fexit"


@lru_cache(maxsize=4096)
def template(plan: ImagePlan, isa: Isa = X86_64) -> Template:
    """The template of a plan. PlanError where the architecture has no image for it."""
    return assembled(plan, isa)


def assembled(plan: ImagePlan, isa: Isa = X86_64) -> Template:
    """The template of a plan, generated anew."""
    return assemble(plan, statements(plan, isa), isa)


def layout(plan: ImagePlan, isa: Isa = X86_64) -> Layout:
    """Offsets of the words in an image's frame, in the order of __arch_prepare_bpf_trampoline()."""
    slots = _place_slots(plan, isa)
    result = SLOT_BYTES * plan.calls_original
    context = result + SLOT_BYTES * len(slots)
    meta = context + SLOT_BYTES
    ip = meta + SLOT_BYTES * plan.func_ip
    cookies = ip + SLOT_BYTES * len(plan.sessions)
    kept = cookies + SLOT_BYTES
    number = kept + SLOT_BYTES * plan.generic
    run_context = number + RUN_CONTEXT_BYTES
    outgoing = SLOT_BYTES * _count_stacked(plan, slots)
    size = isa.frame_bytes(run_context + outgoing, outgoing, plan.site)
    return Layout(
        site=plan.site,
        slots=len(slots),
        result=result,
        context=context,
        meta=meta,
        ip=ip if plan.func_ip else 0,
        cookies=cookies,
        kept=kept,
        count=number if plan.generic else 0,
        run_context=run_context,
        outgoing=size,
        size=size,
    )


def _place_slots(plan: ImagePlan, isa: Isa) -> tuple[Slot, ...]:
    if plan.shape is not None:
        return isa.convention.slots(plan.shape.arguments)
    return tuple(
        Slot(number, 0, SLOT_BYTES, register, None) for number, register in enumerate(isa.convention.arguments)
    )


def _count_stacked(plan: ImagePlan, slots: Sequence[Slot]) -> int:
    """Counts the stack arguments that the image passes on."""
    return sum(slot.stack is not None for slot in slots) * plan.calls_original


def statements(plan: ImagePlan, isa: Isa = X86_64) -> list[Statement]:
    """The image as a list of instructions and labels."""
    return list(_Image(plan, isa).statements())


class _Image:
    """One image in the making."""

    def __init__(self, plan: ImagePlan, isa: Isa) -> None:
        self._plan = plan
        self._slots = _place_slots(plan, isa)
        self._frame = layout(plan, isa)
        self._emit: Emitter = isa.emitter(self._frame)
        self._arguments = isa.convention.arguments

    def statements(self) -> Iterator[Statement]:
        plan = self._plan
        yield from self._enter()
        for run in plan.fentry:
            yield from self._run(run)
        if plan.fmod_ret:
            yield from self._emit.clear_slot()
        for run in plan.fmod_ret:
            yield from self._run(run)
            yield from self._emit.if_slot(FEXIT)
        if not plan.calls_original:
            yield from self._restore_arguments()
            yield from self._emit.leave("body")
            return
        yield from self._call_original()
        yield Label(FEXIT)
        if plan.sessions:
            yield from self._emit.put_meta(IS_RETURN)
        for run in plan.fexit:
            yield from self._run(run)
        yield Label(EPILOGUE)
        yield from self._call("__bpf_tramp_exit", "im")
        yield Label(EXITED)
        yield from self._emit.load_slot()
        yield from self._emit.leave("caller")

    def _enter(self) -> Iterator[Statement]:
        plan, emit = self._plan, self._emit
        yield from emit.enter()
        if not plan.generic:
            yield from emit.put_meta(0)
        if plan.func_ip and not plan.by_address:
            yield from emit.put_symbol("function", self._frame.ip)
        yield from self._save_arguments()
        yield from self._ask()
        if plan.calls_original:
            yield from self._call("__bpf_tramp_enter", "im", Label(ENTER))
        if plan.sessions:
            for number in range(len(plan.sessions)):
                yield from emit.put(0, self._frame.cookies - SLOT_BYTES * number)
            yield from emit.clear_slot()

    def _save_arguments(self) -> Iterator[Statement]:
        for number, slot in enumerate(self._slots):
            place = self._frame.context - SLOT_BYTES * number
            if slot.register:
                yield from self._emit.store(slot.register, place)
            else:
                assert slot.stack is not None
                yield from self._emit.copy(slot.stack, place)

    def _ask(self) -> Iterator[Statement]:
        """Asks for what an image for several functions must know of the one that called it."""
        plan, emit = self._plan, self._emit
        if plan.generic:
            yield from emit.return_address(self._arguments[0])
            yield from emit.call("lookup")
            yield from emit.result_to(self._frame.count)
            yield from emit.put_meta(0)
        if plan.func_ip and plan.by_address:
            yield from emit.return_address(self._arguments[0])
            yield from emit.call("lookup_ip")
            yield from emit.result_to(self._frame.ip)

    def _call(self, helper: str, argument: str, *here: Label) -> Iterator[Statement]:
        yield from self._emit.symbol(self._arguments[0], argument)
        yield from here
        yield from self._emit.call(helper)

    def _restore_arguments(self) -> Iterator[Statement]:
        for number, slot in enumerate(self._slots):
            if slot.register:
                yield from self._emit.load(slot.register, self._frame.context - SLOT_BYTES * number)

    def _run(self, run: LinkRun) -> Iterator[Statement]:
        """Runs one program, as the code of 7.3's invoke_bpf() and invoke_bpf_prog() does."""
        emit, frame, link = self._emit, self._frame, run.link
        first, second, third, *_ = self._arguments
        gate = self._plan.links[link].gate
        if link in self._plan.sessions:
            yield from emit.put_meta(self._describe_session(run))
        yield Label(_name_nop(run))
        yield from emit.nop()
        yield from emit.put_symbol(f"cookie {link}", frame.run_context)
        yield from emit.symbol(first, f"prog {link}")
        yield from emit.address(second, frame.run_context)
        yield Label(_name_enter(run))
        yield from emit.call(f"__bpf_prog_enter{gate}")
        yield from emit.keep()
        yield from emit.unless_result(_name_skip(run))
        yield from emit.address(first, frame.context)
        yield from emit.call(f"code {link}")
        if run.list == "fmod_ret":
            yield from emit.store_slot()
        yield Label(_name_skip(run))
        yield from emit.symbol(first, f"prog {link}")
        yield from emit.kept(second)
        yield from emit.address(third, frame.run_context)
        yield from emit.call(f"__bpf_prog_exit{gate}")
        yield Label(_name_end(run))

    def _describe_session(self, run: LinkRun) -> int:
        """Makes what ctx[-1] has besides the number of slots: the index of the session's cookie, and the phase."""
        place = self._frame.cookies - SLOT_BYTES * self._plan.sessions.index(run.link)
        index = (place - self._frame.context) // SLOT_BYTES
        return index << COOKIE_INDEX | (IS_RETURN if run.list == "fexit" else 0)

    def _call_original(self) -> Iterator[Statement]:
        emit = self._emit
        yield from self._restore_arguments()
        for number in range(_count_stacked(self._plan, self._slots)):
            yield from emit.copy(number, self._frame.outgoing - SLOT_BYTES * number)
        yield from emit.call_back() if self._plan.by_stack else emit.call("body")
        yield Label(RETURNED)
        yield from emit.store_slot()
        yield Label(AFTER_CALL)
        yield from emit.nop()


def _name_nop(run: LinkRun) -> str:
    return f"{run.list} {run.link}: nop"


def _name_enter(run: LinkRun) -> str:
    return f"{run.list} {run.link}: enter"


def _name_skip(run: LinkRun) -> str:
    return f"{run.list} {run.link}: not entered"


def _name_end(run: LinkRun) -> str:
    return f"{run.list} {run.link}: behind"


def assemble(plan: ImagePlan, made: Sequence[Statement], isa: Isa = X86_64) -> Template:
    """The template of a plan's statements. BadInputError if the code is not what they say."""
    instructions = [statement for statement in made if isinstance(statement, Instruction)]
    pieces = [_encode(one, isa) for one in instructions]
    code = bytearray().join(pieces)
    ends = list(accumulate(map(len, pieces)))
    labels = _place_labels(made, ends)
    holes = tuple(_clear_holes(code, instructions, ends))
    for hole in holes:
        if hole.symbol in labels:
            _point(code, hole, labels[hole.symbol])
    runs = (*plan.fentry, *plan.fmod_ret, *plan.fexit)
    return Template(
        bytes(code),
        tuple(hole for hole in holes if hole.symbol not in labels),
        labels.get(AFTER_CALL),
        labels.get(EPILOGUE),
        tuple(Skip(run, labels[_name_nop(run)], labels[_name_end(run)], labels[_name_enter(run)]) for run in runs),
        labels.get(ENTER),
        labels.get(RETURNED),
        labels.get(EXITED),
    )


@lru_cache(maxsize=1 << 16)
def _encode(one: Instruction, isa: Isa) -> bytes:
    """Assembles one statement, and checks what capstone makes of it. Most templates share their statements."""
    code = one.code or assembler.assemble(one.text, dialect=isa.dialect)
    found = list(assembler.disassembler(isa.dialect).disasm_lite(code, 0))
    strange = {mnemonic for _, _, mnemonic, _ in found} - isa.mnemonics
    if strange:
        raise BadInputError(f"'{one.text}' is what no image has: {', '.join(sorted(strange))}")
    if one.count != len(found) or len(code) != sum(size for _, size, _, _ in found):
        raise BadInputError(f"'{one.text}' is {len(code)} bytes that are disassembled as {len(found)} instructions")
    return code


def _place_labels(made: Sequence[Statement], ends: Sequence[int]) -> dict[str, int]:
    labels: dict[str, int] = {}
    passed = 0
    for statement in made:
        if isinstance(statement, Label):
            labels[statement.name] = ends[passed - 1] if passed else 0
        else:
            passed += 1
    return labels


def _clear_holes(code: bytearray, instructions: Sequence[Instruction], ends: Sequence[int]) -> Iterator[Hole]:
    """Clears the holes, each of which held the mark."""
    for one, end in zip(instructions, ends, strict=True):
        if one.form is None:
            continue
        hole = Hole(end - one.form.size, one.form, one.symbol)
        for field in one.form.fields:
            mask = (1 << field.bits) - 1
            word = _read_word(code, hole, field)
            if word >> field.low & mask not in {0, MARK >> field.shift & mask}:
                raise BadInputError(f"the code at +{hole.offset:#x} has no hole for {one.symbol}")
            _write(code, hole, field, word & ~(mask << field.low))
        yield hole


def _point(code: bytearray, hole: Hole, target: int) -> None:
    """Fills the hole of a jump within the code."""
    distance = target - hole.offset - (hole.form.origin or 0)
    for field in hole.form.fields:
        bits = distance >> field.shift & (1 << field.bits) - 1
        _write(code, hole, field, _read_word(code, hole, field) | bits << field.low)


def _read_word(code: bytearray, hole: Hole, field: BitField) -> int:
    start = hole.offset + field.offset
    return int.from_bytes(code[start : start + field.size], "little")


def _write(code: bytearray, hole: Hole, field: BitField, word: int) -> None:
    start = hole.offset + field.offset
    code[start : start + field.size] = word.to_bytes(field.size, "little")
