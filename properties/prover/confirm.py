"""Executes a counterexample in unicorn, under the same obligations, to see that what the prover says happens.

The image runs one instruction at a time; callees are not executed: they return what the counterexample says. What the
kernel patches it patches while the task stands at an instruction, as late as it can matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from unicorn import UcError, unicorn_const  # type: ignore[attr-defined]

from properties.prover.architecture import Architecture
from properties.prover.claims import Claimant, claim_of
from properties.prover.goal import Bindings, Goal
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.machine import (
    ALIGNED,
    NO_FAULT,
    NO_LOAD,
    NO_STALE,
    NO_STORE,
    NOP_THERE,
    ONLY_GENERAL,
    STACK_POINTER,
    WHOLE_PLACES,
    BrokenError,
    Departure,
    instruction_limit,
)
from properties.prover.meaning import MODULUS, signed
from properties.prover.operations import LiftedInstruction
from properties.prover.terms import Value, evaluate
from properties.prover.tools import emulator, register_number, register_numbers
from properties.prover.unknowns import BEGINNING, Unknowns, undefined_name
from properties.prover.verdicts import Counterexample
from properties.prover.written import stack_above, stack_bytes

__all__ = ["Emulation", "confirm"]

PAGE: Final = 0x1000
STACK_PAGES: Final = 4

STACK: Final = "stack"

Location = tuple[str, int] | None
"""Where a value was read: a register's name and 0, or STACK and an offset."""


def confirm(
    image: Image,
    goal: Goal | Claimant,
    architecture: Architecture,
    bindings: Bindings,
    values: Mapping[str, int],
    *,
    suspect: int | None = None,
) -> Counterexample | str:
    """Executes an image with these values of the unknowns. Returns the counterexample, or why no obligation is broken.

    suspect: an instruction whose effect on all registers is to be watched.
    """
    try:
        emulation = Emulation(image, goal, architecture, bindings, values, suspect=suspect)
    except UcError as error:
        return f"the emulator does not begin: {error}"
    try:
        emulation.run()
    except BrokenError as error:
        return emulation.counterexample(error.obligation, error.got, error.expected)
    except UcError as error:
        broken = _BROKEN.get(error.errno)
        if broken is not None:
            return emulation.counterexample(broken, None, None)
        return f"the emulator stops at +{emulation.at - image.address:#x}: {error}"
    return "it leaves the image with no obligation broken"


class Emulation:
    """One execution. As a Machine, it shows the obligations numbers.

    stands: where the task stands while the image is patched; without it, the first place that is patched.
    """

    def __init__(
        self,
        image: Image,
        goal: Goal | Claimant,
        architecture: Architecture,
        bindings: Bindings,
        values: Mapping[str, int],
        *,
        suspect: int | None = None,
        stands: int | None = None,
    ) -> None:
        self.architecture = architecture
        self._suspect = suspect
        self.bindings = dict(bindings)
        self.at = image.address
        self._image = image
        self._claim = claim = claim_of(image, goal, architecture)
        self._demands, self._frame = claim.demands, claim.frame
        self._unknowns = Unknowns(values, claim.symbols)
        self._top = self._unknowns.value(architecture.convention.stack_pointer, 64)
        self._regions = [(region, self._evaluate(region.base)) for region in claim.frame.regions]
        patches = [patch for patch in image.patches if patch.name in claim.patches]
        self._within = image.within(patches, architecture)
        self._misplaced = image.misplaced(patches, architecture)
        self._patches = tuple(patch for patch in patches if self._unknowns.value(patch.name, 1))
        self._stops = {patch.at for patch in self._patches} if stands is None else {stands}
        self.stands: int | None = None
        self._places = {patch.at: patch.name for patch in patches}
        self._passed: dict[str, int] = {}
        self._path: list[int] = []
        self._accesses: list[tuple[bool, int, int]] = []
        self._written = claim.written
        self._undefined: Counter[int] = Counter()
        self._lifter = lifter(architecture)
        self._known = self._lifter.sweep(image.code, image.address, image.used)
        self.departure: Departure = "jump"
        self._before: dict[str, int] = {}
        self._writers: dict[tuple[str, int], int] = {}
        self._read: Location = None
        self._machine = emulator(architecture)
        self._numbers = register_numbers(architecture)
        self._flags = register_number(architecture, architecture.flags_register)
        self._pages: set[int] = set()
        self._set_up()

    def run(self) -> None:
        """Runs to the end, or to an obligation that is broken."""
        progress = self._demands.start()
        pc = self._image.address
        while True:
            if self._image.holds(pc):
                self._step(pc)
            else:
                self._before.clear()
                after = self._demands.event(self, progress, pc)
                if after is None:
                    return
                progress = after
            pc = self._read_pc()

    def _read_pc(self) -> int:
        return int(self._machine.reg_read(self._numbers[self.architecture.pc]))

    def counterexample(self, obligation: str, got: int | None, expected: int | None) -> Counterexample:
        """What has been executed, as a counterexample."""
        culprit = None
        if self._read is not None and got is not None and expected is not None:
            name, place = self._read
            # For a word of the stack, the culprit is what wrote the first byte that differs.
            first = ((got ^ expected) & -(got ^ expected)).bit_length() - 1
            culprit = self._writers.get((name, place + first // 8 if name == STACK else 0))
        patches = () if self.stands is None else self._patches
        return Counterexample(
            obligation, self.at, self._unknowns.values, tuple(self._path), got, expected, culprit, self.stands, patches
        )

    def _set_up(self) -> None:
        self._map(self._image.address, len(self._image.code))
        self._machine.mem_write(self._image.address, self._image.code)
        self._map(self._top - STACK_PAGES * PAGE, 2 * STACK_PAGES * PAGE)
        for region, base in self._regions:
            self._map(base + region.low, region.high - region.low)
        self._set_registers()
        self._set_stack()
        self._add_hooks()

    def _map(self, address: int, size: int) -> None:
        for page in range(address // PAGE, -(-(address + size) // PAGE)):
            if page not in self._pages:
                self._pages.add(page)
                self._machine.mem_map(page * PAGE % MODULUS, PAGE)

    def _evaluate(self, value: Value) -> int:
        return evaluate(value, self._unknowns.value)

    def _set_registers(self) -> None:
        architecture = self.architecture
        flags = self._machine.reg_read(self._flags)
        self._machine.reg_write(self._flags, flags | architecture.set_flags)
        for name, value in self._claim.registers.items():
            if name in architecture.flags:
                self._set_flag(
                    name, self._unknowns.after(name, BEGINNING, 1) if value is None else self._evaluate(value)
                )
            elif value is not None:
                self._machine.reg_write(self._numbers[name], self._evaluate(value))
        self._machine.reg_write(self._numbers[architecture.pc], self._image.address)

    def _set_stack(self) -> None:
        for place, word in self._claim.memory.items():
            self._machine.mem_write(self._find_address(place), self._evaluate(word).to_bytes(8, "little"))

    def _add_hooks(self) -> None:
        def accessed(_: Any, access: int, address: int, size: int, __: int, ___: Any) -> bool:
            self._accesses.append((access in _WRITES, address, size))
            return False

        for hook in _HOOKS:
            self._machine.hook_add(hook, accessed)

    def _step(self, pc: int) -> None:
        """Runs one instruction of the image, and judges it by the rules of the frame."""
        self.at = pc
        self._path.append(pc)
        if pc in self._within:
            raise BrokenError(WHOLE_PLACES)
        if pc in self._misplaced:
            raise BrokenError(NOP_THERE)
        if pc in self._stops and self.stands is None:
            self._patch(pc)
        if pc in self._places:
            name = self._places[pc]
            self._passed[name] = int(self.stands is not None and self._unknowns.value(name, 1))
        limit = instruction_limit(self._image)
        if len(self._path) > limit:
            raise BrokenError(f"the image is left within {limit} instructions")
        before, others = self._before or self._read_general(), self._read_others()
        self._accesses.clear()
        # Without an end, unicorn translates all that follows, at each instruction.
        size = self._lift(pc).size
        end = pc + size if size else MODULUS - 1
        try:
            self._machine.emu_start(pc, end, count=1)
        except UcError as error:
            self._judge(before, pc)
            # The instruction is done, and the next is outside: unicorn looks for it even so.
            if error.errno != unicorn_const.UC_ERR_FETCH_UNMAPPED or self._read_pc() == pc:
                raise
        else:
            self._judge(before, pc)
        if others != self._read_others():
            raise BrokenError(ONLY_GENERAL)

    def _patch(self, pc: int) -> None:
        """Patches the image while the task stands at an instruction."""
        self.stands = pc
        self._image = self._image.patched(self._patches, self.architecture)
        self._machine.mem_write(self._image.address, self._image.code)
        # The emulator does not see that what it has translated is other code now.
        self._machine.ctl_remove_cache(self._image.address, self._image.address + len(self._image.code))
        for patch in self._patches:
            self._known.pop(patch.at, None)

    def _read_others(self) -> list[object]:
        """Reads what the suspect must not change."""
        if self.at != self._suspect:
            return []
        architecture = self.architecture
        counted = ~(sum(1 << bit for bit in architecture.flags.values()) | architecture.ignored_flags)
        flags = self._machine.reg_read(self._flags) & counted
        others = (register_number(architecture, name) for name in architecture.others)
        return [flags, *map(self._machine.reg_read, others)]

    def _read_general(self) -> dict[str, int]:
        values = self._machine.reg_read_batch([self._numbers[name] for name in self.architecture.general])
        return dict(zip(self.architecture.general, values, strict=True))

    def _lift(self, at: int) -> LiftedInstruction:
        found = self._known.get(at)
        if found is None:
            found = self._known[at] = self._lifter.one(self._image.code, self._image.address, at)
        return found

    def _follow(self, at: int) -> None:
        """Sees by which kind of instruction control goes on, and makes flags what the unknowns say if it left them."""
        instruction = self._lift(at)
        self.departure = instruction.departure
        if instruction.undefined:
            self._undefined[at] += 1
            for flag in instruction.undefined:
                name = undefined_name(flag, at - self._image.address, self._undefined[at])
                self._set_flag(flag, self._unknowns.value(name, 1))

    def _judge(self, before: dict[str, int], at: int) -> None:
        self._follow(at)
        after = self._before = self._read_general()
        for name, value in after.items():
            if value != before[name]:
                self._writers[name, 0] = self.at
        pointer = self.architecture.convention.stack_pointer
        now = self._from_top(after[pointer])
        floor = min(self._from_top(before[pointer]), now)
        for writes, address, size in self._accesses:
            low = self._find_offset(address)
            if not (self._frame.store if writes else self._frame.load)(low, low + size, floor):
                raise BrokenError(NO_STORE if writes else NO_LOAD)
            if writes:
                self._written = self._written.plus(stack_bytes(low, low + size))
                self._writers.update(((STACK, at), self.at) for at in range(low, low + size))
            elif not self._written.has(stack_bytes(low, low + size)):
                raise BrokenError(NO_STALE)
        if not self._frame.pointer(now):
            raise BrokenError(STACK_POINTER)
        if now > self._from_top(before[pointer]):
            self._written = self._written.only(stack_above(now))
        if self.architecture.always_aligned and after[pointer] % self.architecture.convention.stack_alignment:
            raise BrokenError(ALIGNED)

    def _find_offset(self, address: int) -> int:
        for region, base in self._regions:
            distance = signed((address - base) % MODULUS, 64)
            if region.low <= distance < region.high:
                return region.place + distance
        return self._from_top(address)

    def _from_top(self, address: int) -> int:
        """Measures from the first stack pointer; a region may begin where the stack ends."""
        return signed((address - self._top) % MODULUS, 64)

    def _find_address(self, place: int) -> int:
        """Finds the address of a place in the stack or in a region."""
        for region, base in self._regions:
            if region.holds(place, place + 1):
                return base + place - region.place
        return self._top + place

    def _set_flag(self, name: str, value: int) -> None:
        bit = 1 << self.architecture.flags[name]
        flags = self._machine.reg_read(self._flags)
        self._machine.reg_write(self._flags, flags | bit if value else flags & ~bit)

    # As a Machine.

    def symbol(self, name: str, bits: int) -> int:
        """See Machine. What is patched behind a task does not concern it."""
        return self._passed[name] if name in self._passed else self._unknowns.value(name, bits)

    def register(self, name: str) -> int:
        """See Machine."""
        self._read = (name, 0)
        if name in self.architecture.flags:
            bit = self.architecture.flags[name]
            return int(self._machine.reg_read(self._flags)) >> bit & 1
        return int(self._machine.reg_read(self._numbers[name]))

    def set_register(self, name: str, value: Value) -> None:
        """See Machine."""
        self._writers.pop((name, 0), None)
        self._machine.reg_write(self._numbers[name], value)

    def word(self, address: Value) -> int:
        """See Machine."""
        place = self.constant(address)
        self._read = (STACK, self._find_offset(place))
        return int.from_bytes(self._machine.mem_read(place, 8), "little")

    def set_word(self, address: Value, value: Value) -> None:
        """See Machine."""
        place = self.constant(address)
        low = self._find_offset(place)
        self._written = self._written.plus(stack_bytes(low, low + 8))
        for at in range(low, low + 8):
            self._writers.pop((STACK, at), None)
        self._machine.mem_write(place, self.constant(value).to_bytes(8, "little"))

    def written(self, obligation: str, address: Value, size: int) -> None:
        """See Machine."""
        low = self._find_offset(self.constant(address))
        self.demand(obligation, self._written.has(stack_bytes(low, low + size)))

    def inside(self, obligation: str, low: Value, size: int) -> None:
        """See Machine."""
        pointer = self.register(self.architecture.convention.stack_pointer)
        floor = self._from_top(pointer) + self.architecture.convention.pushed
        offset = self._find_offset(self.constant(low))
        self.demand(obligation, int(floor <= offset and offset + size <= 0))

    def known(self, predicate: Value) -> bool:
        """See Machine."""
        return predicate == 1

    def demand(self, obligation: str, predicate: Value) -> None:
        """See Machine."""
        self._read = None
        if predicate != 1:
            raise BrokenError(obligation)

    def same(self, obligation: str, got: Value, expected: Value, bits: int = 64) -> None:
        """See Machine."""
        mask = (1 << bits) - 1
        first, second = self.constant(got) & mask, self.constant(expected) & mask
        if first != second:
            raise BrokenError(obligation, first, second)

    def constant(self, value: Value) -> int:
        """See Machine."""
        assert isinstance(value, int)
        return value

    def in_image(self, address: Value) -> Value:
        """See Machine."""
        return int(self._image.holds(self.constant(address)))

    def resume(self, address: int, pointer: Value) -> None:
        """See Machine."""
        self._machine.reg_write(self._numbers[self.architecture.pc], address)
        self._machine.reg_write(self._numbers[self.architecture.convention.stack_pointer], pointer)

    def clobber(self, step: str) -> None:
        """See Machine."""
        architecture = self.architecture
        kept = {*architecture.convention.preserved, *architecture.readable, architecture.convention.stack_pointer}
        for name in architecture.general:
            if name not in kept:
                self.set_register(name, self._unknowns.after(name, step, 64))
        for flag in architecture.flags:
            self._set_flag(flag, 0 if flag in architecture.convention.clear else self._unknowns.after(flag, step, 1))
        live = self._from_top(self.register(architecture.convention.stack_pointer)) + architecture.convention.pushed
        self._written = self._written.only(stack_above(live))

    def forget(self, address: Value, size: int) -> None:
        """See Machine."""
        low = self._find_offset(self.constant(address))
        self._written = self._written.only(~stack_bytes(low, low + size))


_WRITES = {unicorn_const.UC_MEM_WRITE, unicorn_const.UC_MEM_WRITE_UNMAPPED}
# unicorn calls no hook for an access beyond the end of memory. All that may be accessed is mapped.
_BROKEN = {
    unicorn_const.UC_ERR_INSN_INVALID: NO_FAULT,
    unicorn_const.UC_ERR_EXCEPTION: NO_FAULT,
    unicorn_const.UC_ERR_READ_UNMAPPED: NO_LOAD,
    unicorn_const.UC_ERR_WRITE_UNMAPPED: NO_STORE,
}
_HOOKS = (
    unicorn_const.UC_HOOK_MEM_READ,
    unicorn_const.UC_HOOK_MEM_WRITE,
    unicorn_const.UC_HOOK_MEM_READ_UNMAPPED,
    unicorn_const.UC_HOOK_MEM_WRITE_UNMAPPED,
)
