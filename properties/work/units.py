"""A unit of work is a value of names and numbers. Doing it gives a value, the same whoever does it and in which order.

Both cross the border of a process as JSON: nothing is pickled, and what comes back is parsed.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast, get_type_hints

import msgspec

import properties
from spec.errors import BadInputError
from spec.reading import decode, encode

__all__ = [
    "WINGS",
    "Done",
    "Lost",
    "Outcome",
    "Unit",
    "UnitReply",
    "UnitRequest",
    "fingerprint",
    "key",
    "request",
    "unit_of",
    "value_of",
]

NOTHING: Final = msgspec.Raw(b"null")

WINGS: Final = ("spec", "model", "impl", "properties")
"""The packages of the project."""


class Unit(Protocol):
    """A frozen dataclass of names and numbers, at the top of a module. The annotation of work() says what it gives."""

    def work(self, journal: Path) -> object:
        """Do it. journal: a file that may be written; if the process dies, it tells what was being done."""


class UnitRequest(msgspec.Struct, frozen=True):
    """A unit on its way to a process. kind: its class, as `module:name`; version: the asker's fingerprint()."""

    kind: str
    unit: msgspec.Raw
    journal: str
    version: str


class UnitReply(msgspec.Struct, frozen=True):
    """What a process answers: the value, or, if lost, why there is none. refused: the unit is bad input."""

    seconds: float
    value: msgspec.Raw = NOTHING
    lost: Literal["raised", "refused"] | None = None
    told: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """A unit's value. seconds: the time that it took, by the clock."""

    value: Any
    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """A unit that gave no value. told: why, in a sentence; journal: what it had written down.

    It raised an error, it refused what it was to do as bad input, its process died or had to be ended; or it has not
    reached any process that did it to its end.
    """

    reason: Literal["raised", "refused", "died", "hung", "unreached"]
    told: str
    journal: str = ""


Outcome = Done | Lost


def request(unit: Unit, journal: str = "") -> UnitRequest:
    """The request to do a unit."""
    kind = type(unit)
    return UnitRequest(f"{kind.__module__}:{kind.__qualname__}", msgspec.Raw(encode(unit)), journal, fingerprint())


def unit_of(asked: UnitRequest) -> Unit:
    """The unit that a request asks for; BadInputError if it is none of this project's version."""
    if asked.version != fingerprint():
        raise BadInputError(
            "is not of the version of massattach that is here: install one everywhere, and do not change it"
        )
    module, _, name = asked.kind.partition(":")
    kind = getattr(importlib.import_module(module), name, None)
    if not (inspect.isclass(kind) and is_dataclass(kind) and hasattr(kind, "work")):
        raise BadInputError(f"{asked.kind} is no unit of work")
    return cast("Unit", decode(bytes(asked.unit), kind))


def value_of(unit: Unit, text: bytes) -> object:
    """The value of a unit, from its JSON."""
    return decode(text, get_type_hints(type(unit).work)["return"])


def key(unit: Unit) -> str:
    """A name for the unit, which no other has, nor the same one of another version of the project."""
    return hashlib.sha256(encode(request(unit))).hexdigest()[:32]


@cache
def fingerprint() -> str:
    """A name for this version of the project: the digest of all its code."""
    root = Path(properties.__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for wing in WINGS for path in (root / wing).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:32]
