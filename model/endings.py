"""How an operation ends that does not simply succeed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.state import State

__all__ = ["Refused", "Warned", "check_alive"]


class Refused(Exception):  # noqa: N818 - an answer of the kernel, not an error of ours
    """The operation is answered with an errno, by these rules, and leaves this state.

    Nothing is cited here: a rule is reached when the refusal is the answer, not when it is made.
    """

    def __init__(self, state: State, errno: str, *rules: str, warn: bool = False) -> None:
        super().__init__(errno, *rules)
        self.state, self.errno, self.rules, self.warn = state, errno, rules, warn

    def undone(self, before: State) -> Refused:
        """The same answer, where all is undone that was done since `before`, but for the points reached (FAIL-1)."""
        return Refused(replace(before, armed=self.state.armed), self.errno, *self.rules, warn=self.warn)


@dataclass(frozen=True, slots=True)
class Warned:
    """The operation succeeded, and the kernel warned all the same."""

    state: State


def check_alive(state: State, *rules: str) -> None:
    """Refused by these rules after ftrace has died (DEAD-1)."""
    if state.dead:
        raise Refused(state, "ENODEV", *rules)
