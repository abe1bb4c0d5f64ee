"""The obligations, as an automaton over the steps of a goal. Every machine is judged by this code.

It never sees the image. A machine tells it where control goes; it demands what must hold there, and then does to the
machine what the callee would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from properties.prover.architecture import Architecture, Origin
from properties.prover.context import COOKIE_INDEX, COUNT_BITS, FUNCTION_IP, INDEX_BITS, IS_RETURN, META
from properties.prover.goal import Goal, Program, Run
from properties.prover.machine import Departure, Machine
from properties.prover.meaning import MODULUS
from properties.prover.steps import BODY, CALLER, COUNT, FUNCTION, RETURNED_EARLY, ImageStep, skipped, steps
from properties.prover.terms import Value, add, and_, eq, extract, lshr, not_, one_of, or_, sub
from spec.abi import SLOT_BYTES, Slot

__all__ = ["Obligations", "Progress"]

RUN_CONTEXT_BYTES = 16
"""struct bpf_tramp_run_ctx: the cookie, and the task's run context, which enter saves and exit restores."""

SAVED = 8

EXTENDED = 4
"""Bytes of a narrower integer that reach the body: functions compiled by clang rely on their callers to extend it."""

INTEGERS = frozenset({"INT", "ENUM"})


class Progress(NamedTuple):
    """How far a path is. slots: how many the function has. slot: the return slot; run_context: its address.

    The others are predicates: entered, the run has begun; running, its program is to be called; alive, no fmod_ret
    program has asked to leave out the body; called, the body has been. counted: the goal's counters of calls, as the
    last callee left them. sessions: what the cookie of each session is,
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
    counted: tuple[Value, ...] = ()
    sessions: tuple[Value, ...] = ()


class Obligations:
    """What a goal demands. event() is called whenever control leaves the image."""

    def __init__(self, goal: Goal, architecture: Architecture) -> None:
        self.goal = goal
        self.steps = steps(goal)
        self._convention = architecture.convention
        self._entry = architecture.entered(goal.site)
        self._slots = architecture.convention.slots(goal.prototype.shape.arguments, goal.prototype.wide)
        self._aligned_bits = self._convention.stack_alignment.bit_length() - 1
        self._strict = goal.reading == "strict"
        self._result_bits = self._count_bits(min(goal.prototype.returns.size, 8)) if goal.prototype.returns.size else 0
        self._patched = {
            run.place: goal.patches & {skipped(run), *((RETURNED_EARLY,) if run.list == "fexit" else ())}
            for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit)
            if goal.patches
        }
        self._words = [_name_word(slot) for slot in self._slots]
        self._least_bytes = [EXTENDED if each.kind in INTEGERS else 0 for each in goal.prototype.arguments]
        self._frame_pointer = architecture.frame_pointer
        self._paired = architecture.return_stack
        self._area, self._count = architecture.area, architecture.counters
        self._origins: Mapping[Origin, Callable[[Machine], Value]] = {
            "caller": lambda machine: machine.symbol(CALLER, 64),
            "body": lambda machine: machine.symbol(BODY, 64) if goal.shares_ipmodify else goal.body,
        }

    def start(self) -> Progress:
        """Before the first instruction."""
        sessions = (0,) * len(self.goal.programs) if self.goal.has_sessions else ()
        return Progress(slots=len(self._slots), sessions=sessions)

    def first_stack_argument(self) -> int:
        """Where the function's stack arguments begin, from the first stack pointer."""
        return 8 * len(self._entry.words)

    def readable(self) -> int:
        """The end of what the image may load, from the first stack pointer."""
        stacked = (slot.stack for slot in self._slots if slot.stack is not None)
        return self.first_stack_argument() + SLOT_BYTES * max((place + 1 for place in stacked), default=0)

    def event(self, machine: Machine, progress: Progress, target: Value) -> Progress | None:
        """Judges a step: control is at `target`, outside the image. The progress after the callee; None at the end."""
        thunk = target in self.goal.return_thunks
        if thunk:
            # Nothing is popped yet: where a case is made of something, the step is judged again.
            pointer = machine.register(self._convention.stack_pointer)
            target = _read(machine, "the address that a return thunk returns to", pointer)
        position = self._match(machine, progress, target)
        step = self.steps[position]
        for flag in self._convention.clear:
            machine.same(f"{step.text}: {flag} is clear", machine.register(flag), 0, 8)
        progress = Progress(position + 1, *progress[1:])
        if step.what == "leave":
            self._leave(machine, progress, thunk=thunk)
            return None
        if self._is_paired(step):
            machine.demand(f"{step.text}: it is called by a call", int(machine.departure == "call" and not thunk))
        self._judge_chain(machine, step)
        if self.goal.counters:
            self._judge_counters(machine, progress, step)
        pointer = machine.register(self._convention.stack_pointer)
        below = sub(machine.symbol(self._convention.stack_pointer, 64), pointer, 64)
        machine.same(f"{step.text}: the stack pointer is aligned", below, 0, self._aligned_bits)
        link = self._convention.link
        back = machine.register(link) if link else machine.word(pointer)
        machine.demand(f"{step.text}: it returns into the image", machine.in_image(back))
        back = machine.constant(back)
        progress = self._call(machine, progress, step)
        if self.goal.counters:
            progress = self._change_counters(machine, progress, step)
        machine.resume(back, add(pointer, self._convention.pushed, 64))
        return progress

    def _is_paired(self, _: ImageStep) -> bool:
        """Whether control must go to a step by the instruction that is meant for it."""
        return self._paired

    def _judge_chain(self, machine: Machine, step: ImageStep) -> None:
        """Judges the chain of frame records from the frame pointer on: an unwinder follows it out of any callee."""
        record = machine.register(self._frame_pointer)
        for origin in self._entry.records:
            machine.inside(f"{step.text}: the frame pointer is in the frame", record, SLOT_BYTES)
            back = _read(machine, f"{step.text}: the frame record's return address", add(record, SLOT_BYTES, 64))
            machine.same(f"{step.text}: the frame record returns to the {origin}", back, self._origins[origin](machine))
            record = _read(machine, f"{step.text}: the frame record's link", record)
        machine.same(
            f"{step.text}: the chain of frames leads to the caller's", record, machine.symbol(self._frame_pointer, 64)
        )

    def _judge_counters(self, machine: Machine, progress: Progress, step: ImageStep) -> None:
        """Judges the counters of calls: the call is counted once, or not at all."""
        for name, before, now in self._read_counters(machine, progress):
            # The first callee's call comes after the one that led here, which an image may count itself.
            calls = 1 if progress.counted else 2
            machine.demand(f"{step.text}: {name} counts a call once at most", self._counts(name, before, now, calls))

    def _counts(self, name: str, before: Value, now: Value, calls: int) -> Value:
        """Whether a counter has counted so many calls, or less: a predicate."""
        found = eq(now, before, 64)
        for _ in range(calls):
            before = self._count[name](before)
            found = or_(found, eq(now, before, 64), 1)
        return found

    def _read_counters(self, machine: Machine, progress: Progress) -> Iterator[tuple[str, Value, Value]]:
        """Reads each counter of calls: its name, what the last callee left in it, and what it is now."""
        left = progress.counted or tuple(machine.symbol(name, 64) for name in self.goal.counters)
        for (name, place), before in zip(self.goal.counters.items(), left, strict=True):
            yield name, before, machine.word(self._locate(machine, place))

    def _change_counters(self, machine: Machine, progress: Progress, step: ImageStep) -> Progress:
        """Lets the callee change the counters of calls."""
        left = [machine.symbol(f"{name} after {step.text}", 64) for name in self.goal.counters]
        for place, value in zip(self.goal.counters.values(), left, strict=True):
            machine.set_word(self._locate(machine, place), value)
        return progress._replace(counted=tuple(left))

    def _locate(self, machine: Machine, place: int) -> Value:
        """Locates a counter in the processor's own area."""
        return add(machine.symbol(self._area, 64), place, 64)

    def skips(self, machine: Machine, progress: Progress, position: int) -> bool:
        """Whether all steps up to a position are plainly to be left out."""
        return all(
            machine.known(self._guard(machine, step, progress)) is False
            for step in self.steps[progress.position : position]
        )

    def _match(self, machine: Machine, progress: Progress, target: Value) -> int:
        """Finds the step that this target is. Those passed over must be ones to leave out."""
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

    def _is_reached(self, machine: Machine, target: Value, step: ImageStep) -> Value:
        """Whether control is at the step's target; of two, at the one of the helper that the program is entered by."""
        if len(step.targets) == 1 and target == step.targets[0]:
            return 1
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

    def _guard(self, machine: Machine, step: ImageStep, progress: Progress) -> Value:
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

    def _call(self, machine: Machine, progress: Progress, step: ImageStep) -> Progress:
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

    def _look_up(self, machine: Machine, progress: Progress, step: ImageStep) -> Progress:
        passed, body = self._read_argument(machine, 0), self._origins["body"](machine)
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

    def _enter(self, machine: Machine, progress: Progress, step: ImageStep, run: Run) -> Progress:
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

    def _exit(self, machine: Machine, progress: Progress, step: ImageStep, run: Run) -> Progress:
        self._bind(
            machine, f"{step.text}: its program is passed", f"prog {run.program}", self._read_argument(machine, 0)
        )
        machine.same(f"{step.text}: what enter returned is passed", self._read_argument(machine, 1), progress.ticket)
        context = self._read_argument(machine, 2)
        machine.same(f"{step.text}: the same run context is passed", context, progress.run_context)
        name = f"{step.text}: the saved run context"
        saved = _read(machine, name, add(progress.run_context, SAVED, 64))
        machine.same(f"{name} is intact", saved, progress.saved)
        machine.clobber(step.text)
        alive = eq(progress.slot, 0, 64) if run.list == "fmod_ret" else progress.alive
        return progress._replace(entered=0, running=0, alive=alive)

    def _run_program(
        self, machine: Machine, progress: Progress, step: ImageStep, run: Run, program: Program
    ) -> Progress:
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

    def _judge_context(self, machine: Machine, progress: Progress, step: ImageStep, run: Run, context: Value) -> None:
        """Judges what the program may read: its context, and through helpers the words below it and the run context."""
        kind = self.goal.programs[run.program].kind
        below, sees_slot = -(FUNCTION_IP if self.goal.func_ip else META), run.list != "fentry" or kind == "fsession"
        size = 8 * (progress.slots + sees_slot) + below
        machine.inside(f"{step.place}: the context is in the frame", sub(context, below, 64), size)
        for number in range(progress.slots):
            slot, word = self._slots[number], self._words[number]
            name = f"{step.place}: ctx[{number}]"
            got = _read(machine, name, add(context, 8 * number, 64))
            expected = self._name_value(machine, number)
            machine.same(f"{name} is {word}", got, expected, self._count_bits(slot.size))
        if sees_slot:
            name = f"{step.place}: ctx[{progress.slots}]"
            got = _read(machine, name, add(context, 8 * progress.slots, 64))
            machine.same(f"{name} is the return slot", got, progress.slot, self._result_bits)
        if self.goal.func_ip:
            got = _read(machine, f"{step.place}: ctx[-2]", add(context, FUNCTION_IP % (1 << 64), 64))
            known = self.goal.lookup_ip is None
            expected = self.goal.function if known else machine.symbol(FUNCTION, 64)
            machine.same(f"{step.place}: ctx[-2] is the function's address", got, expected)
        cookie = _read(machine, f"{step.place}: the run context's cookie", progress.run_context)
        self._bind(machine, f"{step.place}: the run context has its cookie", f"cookie {run.program}", cookie)

    def _judge_session(
        self, machine: Machine, progress: Progress, step: ImageStep, run: Run, context: Value
    ) -> Progress:
        """Judges the word at ctx[-1]: the number of slots and, where there are sessions, cookie index and phase."""
        meta = _read(machine, f"{step.place}: ctx[-1]", add(context, META % (1 << 64), 64))
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
            cookie = _read(machine, f"{step.place}: its session cookie", address)
            machine.same(f"{step.place}: its session cookie is what it left", cookie, expected)
        return progress

    def _owns_cookie(self, machine: Machine, step: ImageStep, run: Run, program: Program, index: int) -> bool:
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

    def _leave_session(
        self, machine: Machine, progress: Progress, step: ImageStep, run: Run, context: Value
    ) -> Progress:
        """Lets a session write its cookie, which it must find when it runs again."""
        index = machine.bindings.get(f"session {run.program}")
        if index is None:
            return progress
        left = machine.symbol(f"{step.text} left in its cookie", 64)
        machine.set_word(sub(context, 8 * index, 64), left)
        sessions = (*progress.sessions[: run.program], left, *progress.sessions[run.program + 1 :])
        return progress._replace(sessions=sessions)

    def _call_original(self, machine: Machine, progress: Progress, step: ImageStep) -> Progress:
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
        """Judges whether the function's arguments are where it expects them."""
        pointer = machine.register(self._convention.stack_pointer)
        outgoing = self._convention.pushed
        for number in range(progress.slots):
            slot, word = self._slots[number], self._words[number]
            bits = self._count_bits(slot.size, self._least_bytes[slot.argument])
            if slot.register is not None:
                machine.same(
                    f"{word} ({slot.register}) {ending}",
                    machine.register(slot.register),
                    self._name_value(machine, number),
                    bits,
                )
            elif ending == "reaches the original":
                assert slot.stack is not None
                got = _read(machine, f"stack argument {slot.stack}", add(pointer, outgoing + 8 * slot.stack, 64))
                machine.same(f"stack argument {slot.stack} {ending}", got, self._name_value(machine, number), bits)

    def _leave(self, machine: Machine, progress: Progress, *, thunk: bool) -> None:
        """Judges the end. thunk: control has jumped to a return thunk, which has yet to pop the address."""
        convention = self._convention
        origin: Origin = "caller" if self.goal.calls_original else "body"
        if self._is_paired(self.steps[-1]):
            wanted: Departure = "return" if origin in self._entry.words else "jump"
            departure = "return" if thunk else machine.departure
            machine.demand(f"the image is left by a {wanted}", int(departure == wanted))
        self._judge_sleepers(machine)
        for name, before, now in self._read_counters(machine, progress):
            calls = 0 if progress.counted else 1
            machine.demand(f"{name} counts no call that is not made", self._counts(name, before, now, calls))
        popped = self._entry.popped(origin) - SLOT_BYTES * thunk
        pointer = add(machine.symbol(convention.stack_pointer, 64), popped % MODULUS, 64)
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

    def _judge_sleepers(self, machine: Machine) -> None:
        """Judges whether a program that may sleep is entered so, where it is not known which of them may."""
        if not self.goal.some_sleep:
            return
        open_ = (place for place, program in enumerate(self.goal.programs) if program.sleepable is None)
        entered = [machine.bindings.get(f"sleepable {place}") for place in open_]
        if None not in entered:
            machine.demand("some program is entered as one that may sleep", int(any(entered)))

    def _bind(self, machine: Machine, obligation: str, name: str, value: Value) -> None:
        """Judges a constant: it is what the goal knows, or else what it was where it first occurred."""
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
        """Names the value of a slot, as the function's caller passed it."""
        slot = self._slots[number]
        return machine.symbol(slot.register or f"stack argument {slot.stack}", 64)

    def _count_bits(self, size: int, least: int = 0) -> int:
        return 64 if self._strict else 8 * max(size, least)


def _read(machine: Machine, name: str, address: Value) -> Value:
    """Reads a word, all of whose bytes must have been written."""
    machine.written(f"{name} is written", address, SLOT_BYTES)
    return machine.word(address)


def _name_word(slot: Slot) -> str:
    return f"argument {slot.argument}" + (f" word {slot.offset // 8}" if slot.offset else "")
