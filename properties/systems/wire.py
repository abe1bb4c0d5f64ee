"""The protocol of `exec:` systems: a process that reads one JSON object a line and answers each with one.

Requests, in the order in which they can come; `docs/exec-protocol.md` shows a whole exchange.

    {"hello": {"protocol": 1, "world": ..., "semantics": {...}, "functions": [...]}}   first, and once
        -> {"name": "...", "supports": ["ftrace_ops", ...]}            the verbs that it can carry out
    {"apply": {"verb": "ftrace_ops", "ops": "o1", ...}} -> {"outcome": "0" or "-EBUSY", "warn": false}
    {"call": {"function": "foo2", "arguments": [1, 2]}} -> {"trace": {"events": [...], "value": 3}}
    {"sites": true}                                     -> {"sites": {"foo2": {"count": 1, ...}, ...}}
    {"cost": true}                                      -> {"cost": {"grace_periods": {...}, ...}}
    {"close": true}                                     no answer: the process ends

To any of them {"error": "one sentence"} is an answer too, and ends the run. Every object has the fields of the
dataclass in `spec` that it stands for, by their names: an operation those of its class in `spec.operations` and its
`verb`, an event of a trace those of its class in `spec.traces` and its kind as `event`. A request has all fields,
absent ones as null; an answer may leave out those that have a default. Numbers are integers of 64 bits, signed or
unsigned, never floats. Text is UTF-8. What a process prints to stderr is kept for the report of its death.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from spec.costs import Cost
from spec.operations import OPERATIONS, Operation
from spec.outcomes import ERRNOS, Errno, Ok, Outcome
from spec.semantics import Semantics
from spec.sites import Site
from spec.traces import Body, DirectCall, GraphEntry, GraphReturn, NestedCall, OpsCall, ProgramRun, Trace
from spec.worlds import Function, World

__all__ = [
    "PROTOCOL",
    "WireError",
    "decode",
    "encode",
    "outcome_answer",
    "read_answer",
    "read_cost",
    "read_hello",
    "read_line",
    "read_outcome",
    "read_sites",
    "read_supports",
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
SCALARS = {str: "a string", int: "an integer", bool: "true or false", NoneType: "null"}
Decoder = Callable[[Any, str], Any]
Value = TypeVar("Value")


class WireError(ValueError):
    """A line that does not follow the protocol; its text is one sentence."""


def write_line(request: Mapping[str, Any]) -> bytes:
    """One object as its line."""
    return json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def read_line(line: bytes) -> dict[str, Any]:
    """The object of one line; WireError if it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        text = _shown(line.decode(errors="replace"))
        raise WireError(f"{text} is no JSON: an object on one line is expected") from error
    if not isinstance(value, dict):
        raise WireError(f"{_shown(value)} is no JSON object")
    return value


def read_answer(line: bytes) -> dict[str, Any]:
    """The object of one line, if it is not an error; WireError if it is."""
    answer = read_line(line)
    if "error" in answer:
        raise WireError(f"it gave up: {_shown(answer['error'])}")
    return answer


def encode(value: object) -> Any:
    """A value of spec as JSON's values: dataclasses become objects, tuples lists, sets sorted lists."""
    if isinstance(value, Operation):
        return {"verb": value.verb} | _fields(value)
    if type(value) in EVENT_NAMES:
        return {"event": EVENT_NAMES[type(value)]} | _fields(value)
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [encode(item) for item in value] if isinstance(value, tuple) else value


def decode(kind: type[Value], value: object, what: str) -> Value:
    """The inverse of `encode` for one type; WireError names the place, which `what` begins, and what is expected."""
    try:
        decoded: Value = _decoder(cast("Hashable", kind))(value, what)
    except RecursionError as error:
        raise WireError(f"{what} is nested too deeply") from error
    return decoded


def write_hello(world: World, semantics: Semantics) -> bytes:
    """The first line: what the run is about."""
    functions = [encode(function) for function in world.functions]
    hello = {"protocol": PROTOCOL, "world": world.name, "semantics": encode(semantics), "functions": functions}
    return write_line({"hello": hello})


def read_hello(request: Mapping[str, Any]) -> tuple[World, Semantics]:
    """What a process written in Python makes of the first line."""
    hello = _member(request, "hello", "the first request")
    functions = decode(tuple[Function, ...], _member(hello, "functions", "hello"), "hello.functions")
    return World(hello["world"], functions), decode(Semantics, _member(hello, "semantics", "hello"), "hello.semantics")


def read_supports(answer: Mapping[str, Any]) -> tuple[str, frozenset[type[Operation]]]:
    """The name and the operations of the answer to hello."""
    name = decode(str, _member(answer, "name", "the answer to hello"), "name")
    verbs = decode(tuple[str, ...], _member(answer, "supports", "the answer to hello"), "supports")
    for verb in verbs:
        if verb not in OPERATIONS:
            raise WireError(f"supports: {_shown(verb)} is no verb; write the first words of a seed's lines")
    return name, frozenset(OPERATIONS[verb] for verb in verbs)


def outcome_answer(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the answer to apply."""
    return {"outcome": str(dataclasses.replace(outcome, warn=False)), "warn": outcome.warn}


def read_outcome(answer: Mapping[str, Any]) -> Outcome:
    """The outcome in the answer to apply."""
    text = decode(str, _member(answer, "outcome", "the answer to apply"), "outcome")
    warn = decode(bool, answer.get("warn", False), "warn")
    if text == "0":
        return Ok(warn)
    if text.startswith("-") and text[1:] in ERRNOS:
        return Errno(text[1:], warn)
    raise WireError(f"outcome: {_shown(text)} is neither 0 nor a minus and an errno's name such as -EBUSY")


def read_sites(answer: Mapping[str, Any]) -> Mapping[str, Site]:
    """The sites in the answer to sites."""
    return decode(Mapping[str, Site], _member(answer, "sites", "the answer to sites"), "sites")  # type: ignore[type-abstract]


def read_trace(answer: Mapping[str, Any]) -> Trace:
    """The trace in the answer to call."""
    return decode(Trace, _member(answer, "trace", "the answer to call"), "trace")


def read_cost(answer: Mapping[str, Any]) -> Cost:
    """The cost in the answer to cost."""
    return decode(Cost, _member(answer, "cost", "the answer to cost"), "cost")


def _fields(value: Any) -> dict[str, Any]:
    return {entry.name: encode(getattr(value, entry.name)) for entry in dataclasses.fields(value)}


def _member(value: object, key: str, what: str) -> Any:
    if not isinstance(value, Mapping) or key not in value:
        raise WireError(f"{what} lacks '{key}': {_shown(value)}")
    return value[key]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _expected(what: str, expected: str, value: object) -> WireError:
    return WireError(f"{what}: {expected} is expected, not {_shown(value)}")


@cache
def _decoder(kind: Any) -> Decoder:
    """The function that reads a type, as a dataclass's annotations spell it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in SCALARS:
        return _scalar(kind)
    if kind is Operation:
        return _tagged("verb", OPERATIONS)
    if origin in {Union, UnionType}:
        return _tagged("event", EVENTS) if OpsCall in arguments else _either(arguments)
    if origin is tuple:
        return _list(arguments[0]) if arguments[-1] is Ellipsis else _row(arguments)
    if origin is frozenset:
        return lambda value, what: frozenset(_list(arguments[0])(value, what))
    if origin is Mapping:
        return _mapping(arguments[1])
    if dataclasses.is_dataclass(kind):
        return _record(cast("Hashable", kind))
    raise TypeError(f"no decoder for {kind}")


def _scalar(kind: type) -> Decoder:
    def read(value: Any, what: str) -> Any:
        # type(), since a bool is an int to isinstance().
        if type(value) is not kind:
            raise _expected(what, SCALARS[kind], value)
        return value

    return read


def _either(kinds: tuple[Any, ...]) -> Decoder:
    """A union of scalars and at most one other type."""
    scalars = [kind for kind in kinds if kind in SCALARS]
    others = [kind for kind in kinds if kind not in SCALARS]

    def read(value: Any, what: str) -> Any:
        if type(value) in scalars:
            return value
        if others:
            return _decoder(others[0])(value, what)
        raise _expected(what, " or ".join(SCALARS[kind] for kind in scalars), value)

    return read


def _list(item: Any) -> Decoder:
    def read(value: Any, what: str) -> Any:
        if not isinstance(value, list):
            raise _expected(what, "a list", value)
        return tuple(_decoder(item)(entry, f"{what}[{index}]") for index, entry in enumerate(value))

    return read


def _row(items: tuple[Any, ...]) -> Decoder:
    def read(value: Any, what: str) -> Any:
        if not isinstance(value, list) or len(value) != len(items):
            raise _expected(what, f"a list of {len(items)}", value)
        return tuple(
            _decoder(item)(entry, f"{what}[{at}]") for at, (item, entry) in enumerate(zip(items, value, strict=True))
        )

    return read


def _mapping(item: Any) -> Decoder:
    def read(value: Any, what: str) -> Any:
        if not isinstance(value, dict):
            raise _expected(what, "an object", value)
        return {key: _decoder(item)(entry, f"{what}.{key}") for key, entry in value.items()}

    return read


def _tagged(tag: str, kinds: Mapping[str, type]) -> Decoder:
    """A choice of dataclasses, by the name in one member."""

    def read(value: Any, what: str) -> Any:
        name = _member(value, tag, what)
        if not isinstance(name, str) or name not in kinds:
            raise _expected(f"{what}.{tag}", f"one of {', '.join(kinds)}", name)
        return _record(kinds[name])({key: entry for key, entry in value.items() if key != tag}, what)

    return read


@cache
def _record(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}
    needed = {name for name, entry in entries.items() if entry.default is entry.default_factory is dataclasses.MISSING}

    def read(value: Any, what: str) -> Any:
        if not isinstance(value, dict):
            raise _expected(what, "an object", value)
        for name in needed - value.keys():
            raise WireError(f"{what} lacks '{name}': {_shown(value)}")
        for name in value.keys() - entries.keys():
            raise WireError(f"{what} has no member '{name}': it has {', '.join(entries)}")
        return kind(**{name: _decoder(hints[name])(entry, f"{what}.{name}") for name, entry in value.items()})

    return read
