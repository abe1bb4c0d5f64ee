"""The protocol of `exec:` systems: a process that reads one JSON object a line and answers each with one.

These are the requests; `docs/exec-protocol.md` shows a whole exchange.

    {"hello": {"protocol": 1, "world": ..., "semantics": {...}, "functions": [...]}}   first, and once
        -> {"name": "...", "supports": ["ftrace_ops", ...]}            the verbs that it can carry out
           and perhaps "counts", "sharing", "fails_nth", and "answers": ["declines", ...]     its capabilities
    {"apply": {"verb": "ftrace_ops", "ops": "o1", ...}} -> {"outcome": "0" or "-EBUSY", "warn": false}
    {"call": {"function": "foo2", "arguments": [1, 2]}} -> {"trace": {"events": [...], "value": 3}}
    {"sites": true}                                     -> {"sites": {"foo2": {"count": 1, ...}, ...}}
    {"cost": true}                                      -> {"cost": {"grace_periods": {...}, ...}}
    {"declines": {"verb": ...}}                         -> {"declines": "has no room for a second livepatch" or ""}
    {"console": true}                                   -> {"console": "what a kernel printed"}
    {"originals": true}                                 -> {"originals": {"foo2": "address" or "stack", ...}}
    {"unseen": true}                                    -> {"unseen": "shows no site at a stop" or ""}
    {"left_over": true}                                 -> {"left_over": "what the run did not free" or ""}
    {"link_info": {"verb": "bpf_link_create", ...}}     -> {"link_info": "fentry foo1:7 foo2"}
    {"hash_file": {"verb": "set_ftrace_filter", ...}}   -> {"hash_file": "foo1 foo2"}
    {"step": {"verb": "step", "task": "t1", ...}}       -> {"step": "program:p1"}       only of processes that
    {"finish": {"verb": "finish", "task": "t1"}}        -> {"finish": {"events": ...}}  support tasks
    {"close": true}                                     no answer: the process ends

A process is asked for a capability (spec.capabilities) only if its answer to hello names the request in `answers`. To
any request {"error": "one sentence"} is an answer too, and ends the run. Every object has the fields of the dataclass
in `spec` that it stands for, by their names: an operation those of its class in `spec.operations` and its `verb`, an
event of a trace those of its class in `spec.traces` and its kind as `event`. A request has all fields, absent ones as
null; an answer may leave out those that have a default. Numbers are integers of 64 bits, signed or unsigned, never
floats. Text is UTF-8. What a process prints to stderr is kept for the report of its death.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Protocol, TypeVar, runtime_checkable

import msgspec
from msgspec import Struct

from spec import reading
from spec.capabilities import METHODS, CountedCosts, Level
from spec.costs import Cost
from spec.errors import BadInputError
from spec.operations import OPERATIONS, Operation
from spec.outcomes import ERRNOS, Errno, Ok, Outcome, Pending
from spec.reading import matching, one_of
from spec.semantics import Semantics
from spec.sites import Site
from spec.traces import Body, DirectCall, Event, GraphEntry, GraphReturn, NestedCall, OpsCall, ProgramRun, Trace
from spec.worlds import Function, World

__all__ = [
    "PROTOCOL",
    "HelloAnswer",
    "WireError",
    "decode",
    "encode",
    "outcome_answer",
    "read_answer",
    "read_cost",
    "read_hello",
    "read_hello_answer",
    "read_line",
    "read_method",
    "read_outcome",
    "read_sites",
    "read_trace",
    "write_hello",
    "write_line",
]

PROTOCOL = 1
EVENTS: dict[str, type] = {
    "ops": OpsCall,
    "graph_entry": GraphEntry,
    "graph_return": GraphReturn,
    "direct": DirectCall,
    "program": ProgramRun,
    "body": Body,
    "call": NestedCall,
}
EVENT_NAMES = {kind: name for name, kind in EVENTS.items()}


@runtime_checkable
class _AnyOperation(Protocol):
    """Stands for Operation, which msgspec would take for an object without members."""

    verb: str


TAGS: dict[type, tuple[str, Mapping[str, type]]] = {_AnyOperation: ("verb", OPERATIONS), Event: ("event", EVENTS)}
"""The member that names the class of an object, and the classes by that name."""

TAG_NAMES = ("verb", "event")

Answer = Mapping[str, Any]
Value = TypeVar("Value")


class WireError(ValueError):
    """A line that does not follow the protocol; its text is one sentence."""


class HelloAnswer(Struct, frozen=True):
    """What a process says of itself; the members from `counts` on are its capabilities."""

    name: str
    supports: frozenset[Annotated[str, one_of(OPERATIONS)]]
    counts: CountedCosts | None = None
    sharing: Level | None = None
    fails_nth: bool | None = None
    answers: frozenset[Annotated[str, one_of(METHODS)]] = frozenset()


class _OutcomeAnswer(Struct, frozen=True):
    outcome: Annotated[
        str, matching("0, or a minus and an errno's name such as -EBUSY", f"0|pending|-(?:{'|'.join(ERRNOS)})")
    ]
    warn: bool = False


def write_line(request: Answer) -> bytes:
    """The line of one object."""
    return reading.encode(request) + b"\n"


def read_line(line: bytes) -> dict[str, Any]:
    """The object of one line; WireError if it is none."""
    try:
        return reading.decode(line, dict[str, Any])
    except BadInputError as error:
        raise WireError(f"{_shorten(line.decode(errors='replace'))} is not an object on one line: {error}") from error


def read_answer(line: bytes) -> dict[str, Any]:
    """The object of one line, if it is not an error; WireError if it is."""
    answer = read_line(line)
    if "error" in answer:
        raise WireError(f"it gave up: {_shorten(answer['error'])}")
    return answer


def encode(value: object) -> Any:
    """A value of spec as JSON's values: dataclasses become objects, tuples lists, sets sorted lists."""
    if isinstance(value, Operation):
        return {"verb": value.verb} | _encode_fields(value)
    if isinstance(value, Event):
        return {"event": EVENT_NAMES[type(value)]} | _encode_fields(value)
    if dataclasses.is_dataclass(value):
        return _encode_fields(value)
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [encode(item) for item in value] if isinstance(value, tuple) else value


def decode(kind: type[Value], value: object, place: str) -> Value:
    """The inverse of `encode` for one type; WireError names the place, which `place` begins, and what is expected."""
    try:
        wanted: Any = _AnyOperation if kind is Operation else kind
        found: Value = reading.convert(value, wanted, place, _decode_tagged)
        _check_members(value, found, place)
    except BadInputError as error:
        raise WireError(f"{error}, in {_shorten(value)}") from error
    except RecursionError as error:
        raise WireError(f"{place} is nested too deeply") from error
    return found


def write_hello(world: World, semantics: Semantics) -> bytes:
    """The first line: what the run is about."""
    lists = {
        name: [encode(f) for f in each] for name, each in (("functions", world.functions), ("others", world.others))
    }
    hello = {"protocol": PROTOCOL, "world": world.name, "semantics": encode(semantics), **lists}
    return write_line({"hello": hello})


def read_hello(request: Answer) -> tuple[World, Semantics]:
    """What a process written in Python makes of the first line."""
    hello = _member(request, "hello", dict[str, Any])
    functions = decode(tuple[Function, ...], hello["functions"], "hello.functions")
    others = decode(tuple[Function, ...], hello.get("others", []), "hello.others")
    return World(hello["world"], functions, others), decode(Semantics, hello["semantics"], "hello.semantics")


def read_hello_answer(answer: Answer) -> HelloAnswer:
    """The answer to hello; a process may tell more than is known here."""
    return decode(HelloAnswer, answer, "")


def outcome_answer(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the answer to apply."""
    return {"outcome": str(dataclasses.replace(outcome, warn=False)), "warn": outcome.warn}


def read_outcome(answer: Answer) -> Outcome:
    """The outcome in the answer to apply."""
    found = decode(_OutcomeAnswer, answer, "")
    if found.outcome == "pending":
        return Pending()
    return Ok(found.warn) if found.outcome == "0" else Errno(found.outcome[1:], found.warn)


def read_sites(answer: Answer) -> Mapping[str, Site]:
    """The sites in the answer to sites."""
    return _member(answer, "sites", dict[str, Site])


def read_trace(answer: Answer) -> Trace:
    """The trace in the answer to call."""
    return _member(answer, "trace", Trace)


def read_cost(answer: Answer) -> Cost:
    """The cost in the answer to cost."""
    return _member(answer, "cost", Cost)


def read_method(answer: Answer, method: str) -> Any:
    """What one of METHODS answers."""
    return _member(answer, method, METHODS[method])


def _encode_fields(value: Any) -> dict[str, Any]:
    return {entry.name: encode(getattr(value, entry.name)) for entry in dataclasses.fields(value)}


def _member(answer: Answer, name: str, kind: type[Value]) -> Value:
    if name not in answer:
        raise WireError(f"{name}: is missing in {_shorten(answer)}")
    return decode(kind, answer[name], name)


def _decode_tagged(kind: type, value: Any) -> Any:
    """An operation, with the one inside it if there is one, or an event."""
    tag, kinds = TAGS[kind]
    name = value.get(tag) if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"expected an object whose '{tag}' is one of {', '.join(kinds)}")
    members = {member: item for member, item in value.items() if member != tag}
    try:
        found: Any = msgspec.convert(members, kinds[name], dec_hook=_decode_tagged)
    except msgspec.ValidationError as error:
        # Only of a ValueError does msgspec tell the place around it.
        raise ValueError(str(error)) from error
    if "operation" in members:
        return dataclasses.replace(found, operation=_decode_tagged(_AnyOperation, members["operation"]))
    return found


def _check_members(given: Any, found: Any, place: str) -> None:
    """WireError if something has a member that its class has not; msgspec ignores such members of dataclasses."""
    inside: list[tuple[Any, Any, str]] = []
    if dataclasses.is_dataclass(found):
        known = [entry.name for entry in dataclasses.fields(found)]
        for name in given.keys() - {*known, *TAG_NAMES}:
            raise WireError(f"{place}.{name}: is no member: write {', '.join(known)}")
        inside = [(given[name], getattr(found, name), f".{name}") for name in known if name in given]
    elif isinstance(found, dict):
        inside = [(item, found[name], f".{name}") for name, item in given.items()]
    elif isinstance(found, tuple):
        inside = [(item, value, f"[{index}]") for index, (item, value) in enumerate(zip(given, found, strict=True))]
    for item, value, name in inside:
        if isinstance(item, dict | list):
            _check_members(item, value, place + name)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
