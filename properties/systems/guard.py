"""Guards a plug-in: its exceptions, hangs and wrong answers become one kind of error, which is a finding.

Without the guard a foreign System could end the harness, or answer something that fails only much later.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeVar

from spec.capabilities import METHODS, VALUES
from spec.costs import Cost
from spec.errors import BadInputError
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome, Pending
from spec.reading import convert
from spec.semantics import Semantics
from spec.sites import Site
from spec.system import System, SystemFactory
from spec.traces import Event, Trace
from spec.worlds import World

__all__ = ["GuardedSystem", "SystemCrashError", "guarded"]

Answer = TypeVar("Answer")

MEMBERS = ("name", "supports", "apply", "sites", "call", "cost", "close")


class SystemCrashError(Exception):
    """A System that raised, hung, died or answered nonsense, in one line; `details` has a traceback or stderr."""

    def __init__(self, text: str, details: str = "") -> None:
        super().__init__(text)
        self.details = details


class _TimeUpError(BaseException):
    """The time limit is over. No Exception, so that a plug-in's `except Exception` does not swallow it."""


class GuardedSystem:
    """A System in this process behind a time limit, in seconds, for each of its methods.

    The limit is an alarm signal, so it holds in the main thread only, and not inside of C code: what needs more should
    be an `exec:` system.
    """

    def __init__(self, inner: System, time_limit: float) -> None:
        self._inner = inner
        self._time_limit = time_limit
        missing = [member for member in MEMBERS if member not in dir(inner)]
        if missing:
            raise BadInputError(
                f"the factory returned a {type(inner).__name__}, which is no System: it lacks '{missing[0]}'; "
                "write a class with the members of spec.system.System",
            )
        self._name = self._ask("name", lambda: inner.name, _check_name)
        self._supports = self._ask("supports", lambda: frozenset(inner.supports), _check_supports)
        for member, kind in {**VALUES, **METHODS}.items():
            if member in dir(inner):
                setattr(self, member, self._guard(member, kind))

    @property
    def name(self) -> str:
        """The plug-in's name."""
        return self._name

    @property
    def supports(self) -> frozenset[type[Operation]]:
        """What the plug-in supports; it is asked once."""
        return self._supports

    def apply(self, operation: Operation) -> Outcome:
        """Have the plug-in carry the operation out; SystemCrashError if it fails to."""
        return self._ask(f"apply({operation.verb})", lambda: self._inner.apply(operation), _check_outcome)

    def sites(self) -> Mapping[str, Site]:
        """The sites that the plug-in shows; SystemCrashError if it fails to."""
        return self._ask("sites()", lambda: dict(self._inner.sites()), _check_sites)

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Have the plug-in run the function; SystemCrashError if it fails to."""
        return self._ask(f"call({function})", lambda: self._inner.call(function, arguments), _check_trace)

    def cost(self) -> Cost:
        """The costs that the plug-in has counted; SystemCrashError if it fails to tell."""
        return self._ask("cost()", self._inner.cost, _check_cost)

    def close(self) -> None:
        """Close the plug-in; SystemCrashError if it fails to."""
        self._ask("close()", self._inner.close, lambda _: "")

    def _guard(self, member: str, kind: Any) -> Any:
        """A capability of the plug-in: a value, or a method that is guarded like the others."""

        def check(answer: object) -> str:
            return _check_type(answer, kind)

        if member in VALUES:
            return self._ask(member, lambda: getattr(self._inner, member), check)
        return lambda *arguments: self._ask(f"{member}()", lambda: getattr(self._inner, member)(*arguments), check)

    def _ask(self, what: str, ask: Callable[[], Answer], mistake: Callable[[Answer], str]) -> Answer:
        answer = limited(what, ask, self._time_limit)
        if sentence := mistake(answer):
            raise SystemCrashError(f"{what} returned {sentence}")
        return answer


def guarded(factory: SystemFactory, time_limit: float) -> SystemFactory:
    """A factory of guarded systems; it raises BadInputError if what the given factory makes is no System."""

    def make(world: World, semantics: Semantics) -> System:
        return GuardedSystem(limited("the factory", lambda: factory(world, semantics), time_limit), time_limit)

    return make


def limited(what: str, ask: Callable[[], Answer], time_limit: float) -> Answer:
    """What `ask` returns; SystemCrashError if it raises or needs more than time_limit seconds."""
    try:
        return ask() if threading.current_thread() is not threading.main_thread() else _run_with_alarm(ask, time_limit)
    except BadInputError:
        raise
    except _TimeUpError as error:
        raise SystemCrashError(f"{what} did not return within {time_limit:g} s", traceback.format_exc()) from error
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise SystemCrashError(f"{what} raised {type(error).__name__}: {text}", traceback.format_exc()) from error


def _run_with_alarm(ask: Callable[[], Answer], time_limit: float) -> Answer:
    previous = signal.signal(signal.SIGALRM, _time_up)
    try:
        # The alarm comes back every second, for a plug-in that swallows the first one.
        signal.setitimer(signal.ITIMER_REAL, time_limit, 1.0)
        answer = ask()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return answer
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous or signal.SIG_DFL)


def _time_up(_number: int, _frame: FrameType | None) -> None:
    raise _TimeUpError


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _check_name(answer: object) -> str:
    return "" if isinstance(answer, str) else f"{_kind(answer)}: a str is expected"


def _check_type(answer: object, kind: Any) -> str:
    if kind is Trace:
        return _check_trace(answer)
    try:
        convert(answer, kind)
    except BadInputError as error:
        return f"{_kind(answer)}: {error}"
    return ""


def _check_supports(answer: frozenset[Any]) -> str:
    wrong = [kind for kind in answer if not (isinstance(kind, type) and issubclass(kind, Operation))]
    return f"{wrong[0]!r}: classes of spec.operations are expected" if wrong else ""


def _check_outcome(answer: object) -> str:
    return "" if isinstance(answer, Ok | Errno | Pending) else f"{_kind(answer)}: an Ok or Errno is expected"


def _check_sites(answer: Mapping[Any, Any]) -> str:
    wrong = [site for name, site in answer.items() if not (isinstance(name, str) and isinstance(site, Site))]
    return f"{_kind(wrong[0])} among its values: a Site under each function's name is expected" if wrong else ""


def _check_trace(answer: object) -> str:
    if not isinstance(answer, Trace):
        return f"{_kind(answer)}: a Trace is expected"
    wrong = [event for event in answer.events if not isinstance(event, Event)]
    return f"{_kind(wrong[0])} among its events: the events of spec.traces are expected" if wrong else ""


def _check_cost(answer: object) -> str:
    return "" if isinstance(answer, Cost) else f"{_kind(answer)}: a Cost is expected"
