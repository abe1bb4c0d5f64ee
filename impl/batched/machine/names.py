"""Names by the numbers that code leaves in a trace."""

from __future__ import annotations

from impl.batched.machine import addresses as at
from impl.batched.programs import EXTENSION
from impl.batched.state import State
from spec.worlds import Function

__all__ = ["StateNames"]


class StateNames:
    """Looks numbers up in the state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def function(self, index: int) -> Function:
        """A function, by index."""
        return self._state.functions.all[index]

    def function_at(self, address: int) -> str:
        """The name of the function whose entry is at an address."""
        index, rest = divmod(address - at.TEXT, at.FUNCTION_BYTES)
        return hex(address) if rest or not 0 <= index < self._state.functions.count else self.function(index).name

    def ops(self, number: int) -> str:
        """An ops, by its code."""
        return next(ops.name for ops in self._state.ops.values() if ops.code == number)

    def user(self, slot: int) -> str:
        """A user of the graph tracer, by slot."""
        return next(user.name for user in self._state.graph.users if user.slot == slot)

    def direct(self, number: int) -> str:
        """A direct trampoline."""
        return self._state.direct.names[number]

    def program(self, number: int) -> tuple[str, str, bool, bool]:
        """A program's kind and name, whether its context has a return slot, and whether it asks for the address."""
        program = self._state.program_numbered[number]
        return program.kind, program.name, program.kind not in {"fentry", EXTENSION}, program.func_ip

    def is_one_program(self, number: int) -> bool:
        """Whether it is loaded once; others are for each function that they are attached to."""
        program = self._state.program_numbered[number]
        return program.multi or program.target >= 0
