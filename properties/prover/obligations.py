"""The obligations, as an automaton over the steps of a goal. The prover and the emulator's monitor run the same code.

It never sees the image: a machine tells it where control goes, and it demands what must hold there, then says what the
callee does.
"""

from __future__ import annotations

from typing import NamedTuple

from properties.prover.architecture import Architecture, Origin
from properties.prover.context import COOKIE_INDEX, COUNT_BITS, FUNCTION_IP, INDEX_BITS, IS_RETURN, META
from properties.prover.goal import Goal, Program, Run
from properties.prover.machine import Machine
from properties.prover.steps import BODY, CALLER, COUNT, FUNCTION, RETURNED_EARLY, Step, skipped, steps
from properties.prover.terms import Value, add, and_, eq, extract, lshr, not_, one_of, or_, sub
from spec.abi import Slot

__all__ = ["Obligations", "Progress"]

RUN_CONTEXT_BYTES = 16
"""struct bpf_tramp_run_ctx: the cookie, and the task's run context, which enter saves and exit restores."""

SAVED = 8


class Progress(NamedTuple):
    """How far a path is. slots: how many the function has. slot: the return slot; run_context: its address.

    The others are predicates: entered, the run has begun; running, its program is to be called; alive, no fmod_ret
    program has asked to leave out the body; called, the body has been. sessions: what the cookie of each session is,
    by its place among the goal's programs.
    """

    position: int = 0
    slots: int = 0
    entered: Value = 0
    running: Value = 0
    alive: Value = 1
    called: Value = 0
    slot: Value = 0
    ticket: Value = 0
    run_context: Value = 0
    saved: Value = 0
    sessions: tuple[Value, ...] = ()


class Obligations:
    """What a goal demands. event() is called whenever control leaves the image."""

    def __init__(self, goal: Goal, architecture: Architecture) -> None:
        self.goal = goal
        self.steps = steps(goal)
        self._convention = architecture.convention
        self._entry = architecture.entered(goal.site)
        self._slots = architecture.convention.slots(goal.prototype.shape.arguments)
        self._aligned_bits = self._convention.stack_alignment.bit_length() - 1
        self._strict = goal.reading == "strict"
        self._result_bits = self._count_bits(min(goal.prototype.returns.size, 8)) if goal.prototype.returns.size else 0
        self._patched = {
            run.place: goal.patches & {skipped(run), *((RETURNED_EARLY,) if run.list == "fexit" else ())}
            for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit)
        }
        self._words = [_name_word(slot) for slot in self._slots]

    def start(self) -> Progress:
        """Before the first instruction."""
        sessions = (0,) * len(self.goal.programs) if self.goal.has_sessions else ()
        return Progress(slots=len(self._slots), sessions=sessions)

    def first_stack_argument(self) -> int:
        """Where the function's stack arguments begin, from the first stack pointer."""
        return 8 * len(self._entry.words)

    def readable(self) -> int:
        """The end of what the image may load, from the first stack pointer."""
        return self.first_stack_argument() + 8 * sum(slot.stack is not None for slot in self._slots)

    def event(self, machine: Machine, progress: Progress, target: Value) -> Progress | None:
        """Control is at `target`, outside the image. The progress after the callee has returned; None at the end."""
        position = self._match(machine, progress, target)
        step = self.steps[position]
        for flag in self._convention.clear:
            machine.same(f"{step.text}: {flag} is clear", machine.register(flag), 0, 8)
        progress = progress._replace(position=position + 1)
        if step.what == "leave":
            self._leave(machine, progress)
            return None
        pointer = machine.register(self._convention.stack_pointer)
        below = sub(machine.symbol(self._convention.stack_pointer, 64), pointer, 64)
        machine.same(f"{step.text}: the stack pointer is aligned", below, 0, self._aligned_bits)
        link = self._convention.link
        back = machine.register(link) if link else machine.word(pointer)
        machine.demand(f"{step.text}: it returns into the image", machine.in_image(back))
        back = machine.constant(back)
        progress = self._call(machine, progress, step)
        machine.resume(back, add(pointer, self._convention.pushed, 64))
        return progress

    def skips(self, machine: Machine, progress: Progress, position: int) -> bool:
        """Whether all steps up to a position are plainly to be left out."""
        return all(
            machine.known(self._guard(machine, step, progress)) is False
            for step in self.steps[progress.position : position]
        )

    def _match(self, machine: Machine, progress: Progress, target: Value) -> int:
        """The step that this target is; those passed over must be ones to leave out."""
        for position in range(progress.position, len(self.steps)):
            step = self.steps[position]
            guard = self._guard(machine, step, progress)
            due = machine.known(guard)
            if due is None:
                due = machine.constant(guard) == 1
            if not due:
                continue
            machine.demand(f"{step.text}: {step.name} is reached", self._is_reached(machine, target, step))
            return position
        raise AssertionError("the last step is always due")

    def _is_reached(self, machine: Machine, target: Value, step: Step) -> Value:
        """Whether control is at the step's target; of two, at the one of the helper that the program is entered by."""
        addresses = [
            machine.symbol(expected, 64) if isinstance(expected, str) else expected for expected in step.targets
        ]
        if len(addresses) > 1 and step.run is not None:
            name = f"sleepable {step.run.program}"
            if name not in machine.bindings and target in addresses:
                machine.bindings[name] = addresses.index(target)
            if name in machine.bindings:
                addresses = [addresses[machine.bindings[name]]]
        reached: Value = 0
        for address in addresses:
            reached = or_(reached, eq(target, address, 64), 1) if address is not None else reached
        return reached

    def _guard(self, machine: Machine, step: Step, progress: Progress) -> Value:
        if step.what == "program":
            return progress.running
        if step.what == "exit":
            return progress.entered
        if step.what == "original":
            return progress.alive
        return self._is_due(machine, step.run, progress) if step.run else 1

    def _is_due(self, machine: Machine, run: Run, progress: Progress) -> Value:
        due = progress.alive if run.list == "fmod_ret" else 1
        for name in self._patched.get(run.place, ()):
            patched = machine.symbol(name, 1)
            due = and_(due, not_(and_(patched, progress.called, 1) if name == RETURNED_EARLY else patched), 1)
        return due

    def _call(self, machine: Machine, progress: Progress, step: Step) -> Progress:
        if step.run is None:
            if step.what == "original":
                return self._call_original(machine, progress, step)
            if step.what in {"lookup", "lookup_ip"}:
                return self._look_up(machine, progress, step)
            self._bind(machine, f"{step.text}: its image is passed", "im", self._read_argument(machine, 0))
            machine.clobber(step.text)
            return progress
        program = self.goal.programs[step.run.program]
        if step.what == "enter":
            return self._enter(machine, progress, step, step.run)
        if step.what == "program":
            return self._run_program(machine, progress, step, step.run, program)
        return self._exit(machine, progress, step, step.run)

    def _look_up(self, machine: Machine, progress: Progress, step: Step) -> Progress:
        body = machine.symbol(BODY, 64) if self.goal.shares_ipmodify else self.goal.body
        passed = self._read_argument(machine, 0)
        machine.same(f"{step.text}: the return address into the function is passed", passed, body)
        result = self._convention.results[0]
        if step.what == "lookup_ip":
            machine.clobber(step.text)
            machine.set_register(result, machine.symbol(FUNCTION, 64))
            return progress
        count = machine.constant(machine.symbol(COUNT, 64))
        machine.clobber(step.text)
        machine.set_register(result, count)
        return progress._replace(slots=count)

    def _read_argument(self, machine: Machine, number: int) -> Value:
        return machine.register(self._convention.arguments[number])

    def _enter(self, machine: Machine, progress: Progress, step: Step, run: Run) -> Progress:
        self._bind(
            machine, f"{step.text}: its program is passed", f"prog {run.program}", self._read_argument(machine, 0)
        )
        context = self._read_argument(machine, 1)
        machine.inside(f"{step.text}: the run context is in the frame", context, RUN_CONTEXT_BYTES)
        machine.clobber(step.text)
        ticket = machine.symbol(f"{step.text} returned", 64)
        saved = machine.symbol(f"{step.text} saved", 64)
        machine.set_register(self._convention.results[0], ticket)
        machine.set_word(add(context, SAVED, 64), saved)
        running = not_(eq(ticket, 0, 64))
        return progress._replace(entered=1, running=running, ticket=ticket, run_context=context, saved=saved)

    def _exit(self, machine: Machine, progress: Progress, step: Step, run: Run) -> Progress:
        self._bind(
            machine, f"{step.text}: its program is passed", f"prog {run.program}", self._read_argument(machine, 0)
        )
        machine.same(f"{step.text}: what enter returned is passed", self._read_argument(machine, 1), progress.ticket)
        context = self._read_argument(machine, 2)
        machine.same(f"{step.text}: the same run context is passed", context, progress.run_context)
        saved = machine.word(add(progress.run_context, SAVED, 64))
        machine.same(f"{step.text}: the saved run context is intact", saved, progress.saved)
        machine.clobber(step.text)
        alive = eq(progress.slot, 0, 64) if run.list == "fmod_ret" else progress.alive
        return progress._replace(entered=0, running=0, alive=alive)

    def _run_program(self, machine: Machine, progress: Progress, step: Step, run: Run, program: Program) -> Progress:
        context = self._read_argument(machine, 0)
        self._judge_context(machine, progress, step, run, context)
        progress = self._judge_session(machine, progress, step, run, context)
        machine.clobber(step.text)
        result = machine.symbol(f"{step.text} returned", 64)
        machine.set_register(self._convention.results[0], result)
        if program.kind == "fsession":
            progress = self._leave_session(machine, progress, step, run, context)
        slot = result if run.list == "fmod_ret" else progress.slot
        return progress._replace(running=0, slot=slot)

    def _judge_context(self, machine: Machine, progress: Progress, step: Step, run: Run, context: Value) -> None:
        """What the program may read: its context, and through helpers the words below it and the run context."""
        kind = self.goal.programs[run.program].kind
        below, sees_slot = -(FUNCTION_IP if self.goal.func_ip else META), run.list != "fentry" or kind == "fsession"
        size = 8 * (progress.slots + sees_slot) + below
        machine.inside(f"{step.place}: the context is in the frame", sub(context, below, 64), size)
        for number in range(progress.slots):
            slot, word = self._slots[number], self._words[number]
            got = machine.word(add(context, 8 * number, 64))
            expected = self._name_value(machine, number)
            machine.same(f"{step.place}: ctx[{number}] is {word}", got, expected, self._count_bits(slot.size))
        if sees_slot:
            got = machine.word(add(context, 8 * progress.slots, 64))
            name = f"{step.place}: ctx[{progress.slots}] is the return slot"
            machine.same(name, got, progress.slot, self._result_bits)
        if self.goal.func_ip:
            got = machine.word(add(context, FUNCTION_IP % (1 << 64), 64))
            known = self.goal.lookup_ip is None
            expected = self.goal.function if known else machine.symbol(FUNCTION, 64)
            machine.same(f"{step.place}: ctx[-2] is the function's address", got, expected)
        cookie = machine.word(progress.run_context)
        self._bind(machine, f"{step.place}: the run context has its cookie", f"cookie {run.program}", cookie)

    def _judge_session(self, machine: Machine, progress: Progress, step: Step, run: Run, context: Value) -> Progress:
        """The word at ctx[-1]: the number of slots; with sessions about, their index of a cookie and phase as well."""
        meta = machine.word(add(context, META % (1 << 64), 64))
        bits = COUNT_BITS if self.goal.has_sessions else 64
        machine.same(f"{step.place}: ctx[-1] is the number of slots", meta, progress.slots, bits)
        program = self.goal.programs[run.program]
        if program.kind != "fsession":
            return progress
        returning = run.list == "fexit"
        machine.same(f"{step.place}: ctx[-1] tells entry from return", lshr(meta, IS_RETURN, 64), int(returning))
        index = machine.constant(extract(lshr(meta, COOKIE_INDEX, 64), 0, INDEX_BITS))
        if self._owns_cookie(machine, step, run, program, index):
            address = sub(context, 8 * index, 64)
            machine.inside(f"{step.place}: its session cookie is in the frame", address, 8)
            expected = progress.sessions[run.program]
            machine.same(f"{step.place}: its session cookie is what it left", machine.word(address), expected)
        return progress

    def _owns_cookie(self, machine: Machine, step: Step, run: Run, program: Program, index: int) -> bool:
        """Whether an index in ctx[-1] is the program's own; one that does not ask may find another's, or 0."""
        if program.session_cookie is False:
            return False
        name = f"session {run.program}"
        others = {value for other, value in machine.bindings.items() if other.startswith("session ") and other != name}
        if program.session_cookie is None and name not in machine.bindings and (index == 0 or index in others):
            return False
        machine.demand(f"{step.place}: its session cookie is its own", int(index not in others and index != 0))
        machine.same(f"{step.place}: its session cookie stays", index, machine.bindings.setdefault(name, index))
        return True

    def _leave_session(self, machine: Machine, progress: Progress, step: Step, run: Run, context: Value) -> Progress:
        """A session writes its cookie: what it leaves is there when it runs again."""
        index = machine.bindings.get(f"session {run.program}")
        if index is None:
            return progress
        left = machine.symbol(f"{step.text} left in its cookie", 64)
        machine.set_word(sub(context, 8 * index, 64), left)
        sessions = (*progress.sessions[: run.program], left, *progress.sessions[run.program + 1 :])
        return progress._replace(sessions=sessions)

    def _call_original(self, machine: Machine, progress: Progress, step: Step) -> Progress:
        self._judge_arguments(machine, progress, "reaches the original")
        outgoing = self._convention.pushed
        pointer = machine.register(self._convention.stack_pointer)
        machine.clobber(step.text)
        machine.forget(add(pointer, outgoing, 64), self.readable() - self.first_stack_argument())
        result = machine.symbol("the original returned", 64)
        low, high = self._convention.results
        machine.set_register(low, result)
        if self.goal.prototype.returns.size > 8:
            machine.set_register(high, machine.symbol("the original returned, high word", 64))
        return progress._replace(slot=result, called=1)

    def _judge_arguments(self, machine: Machine, progress: Progress, ending: str) -> None:
        """The function's arguments are where it expects them."""
        pointer = machine.register(self._convention.stack_pointer)
        outgoing = self._convention.pushed
        for number in range(progress.slots):
            slot, word = self._slots[number], self._words[number]
            bits = self._count_bits(slot.size)
            if slot.register is not None:
                machine.same(
                    f"{word} ({slot.register}) {ending}",
                    machine.register(slot.register),
                    self._name_value(machine, number),
                    bits,
                )
            elif ending == "reaches the original":
                assert slot.stack is not None
                got = machine.word(add(pointer, outgoing + 8 * slot.stack, 64))
                machine.same(f"stack argument {slot.stack} {ending}", got, self._name_value(machine, number), bits)

    def _leave(self, machine: Machine, progress: Progress) -> None:
        convention = self._convention
        origin: Origin = "caller" if self.goal.calls_original else "body"
        pointer = add(machine.symbol(convention.stack_pointer, 64), self._entry.popped(origin), 64)
        machine.same(f"{convention.stack_pointer} is restored", machine.register(convention.stack_pointer), pointer)
        for name in convention.preserved:
            machine.same(f"{name} is restored", machine.register(name), machine.symbol(name, 64))
        if origin == "body":
            if convention.link is not None:
                caller = machine.symbol(CALLER, 64)
                machine.same(f"{convention.link} is restored", machine.register(convention.link), caller)
            self._judge_arguments(machine, progress, "is restored")
            return
        low, high = convention.results
        machine.same("the caller gets the return value", machine.register(low), progress.slot, self._result_bits)
        if self.goal.prototype.returns.size > 8 and not self.goal.fmod_ret:
            expected = machine.symbol("the original returned, high word", 64)
            machine.same("the caller gets the return value, high word", machine.register(high), expected)

    def _bind(self, machine: Machine, obligation: str, name: str, value: Value) -> None:
        """A constant: what the goal knows, or else what it was where it first occurred."""
        expected = machine.bindings.get(name)
        if expected is not None:
            machine.same(obligation, value, expected)
            return
        if name.startswith("cookie"):
            machine.demand(obligation, not_(eq(value, 0, 64)))
        else:
            taken = {known for other, known in machine.bindings.items() if other == "im" or other.startswith("prog ")}
            machine.demand(obligation, one_of(value, sorted(self.goal.objects - taken), 64))
        machine.bindings[name] = machine.constant(value)

    def _name_value(self, machine: Machine, number: int) -> Value:
        """The value of a slot, as the function's caller passed it."""
        slot = self._slots[number]
        return machine.symbol(slot.register or f"stack argument {slot.stack}", 64)

    def _count_bits(self, size: int) -> int:
        return 64 if self._strict else 8 * size


def _name_word(slot: Slot) -> str:
    return f"argument {slot.argument}" + (f" word {slot.offset // 8}" if slot.offset else "")
