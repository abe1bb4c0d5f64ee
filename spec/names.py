"""The names in an operation: what it makes, what it uses, and what of the world it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, fields, replace
from typing import Any

from spec.operations import OPERATIONS, Operation

__all__ = ["Name", "names_of", "renamed"]


@dataclass(frozen=True, slots=True)
class Name:
    """A name in an operation.

    space: what kind of thing it is of: ops, prog, link, user, tramp, task, function, glob, module. role: `makes`,
    `uses` or `names`. covers: the operation puts something on this function.
    """

    space: str
    role: str
    covers: bool
    text: str


def names_of(operation: Operation, role: str = "") -> Iterator[Name]:
    """The names in an operation, from left to right: all of them, or those in one role.

    A glob among the targets of a link stands where functions stand.
    """
    for entry in _NAMED_FIELDS[type(operation)]:
        if entry.metadata["form"] == "nested":
            yield from names_of(getattr(operation, entry.name), role)
        elif not role or entry.metadata["role"] == role:
            yield from _names_in(entry, getattr(operation, entry.name))


def _names_in(entry: Field[Any], value: Any) -> Iterator[Name]:
    space, role, covers = entry.metadata["space"], entry.metadata["role"], entry.metadata.get("covers", False)
    match entry.metadata["form"]:
        case "option" if space == "point":
            if value is not None and ":" in value:
                yield Name("prog", role, covers, value.partition(":")[2])
        case "pairs":
            for function, tramp in value:
                yield Name(space, role, covers, function)
                yield Name("tramp", role, covers=False, text=tramp)
        case "targets":
            yield from (Name(space, role, covers, function) for function, _ in value)
        case "words":
            yield from (Name(space, role, covers, function) for function in value)
        case _ if value is not None:
            yield Name(space, role, covers, value)


def renamed(operation: Operation, rename: Callable[[str, str], str]) -> Operation:
    """The operation with other names: `rename` is given the space of each name and the name."""
    changes = {
        entry.name: _rename_in(entry, getattr(operation, entry.name), rename)
        for entry in _NAMED_FIELDS[type(operation)]
    }
    return replace(operation, **changes)


def _rename_in(entry: Field[Any], value: Any, rename: Callable[[str, str], str]) -> Any:
    space: str = entry.metadata.get("space", "")
    match entry.metadata["form"]:
        case "nested":
            return renamed(value, rename)
        case "option" if space == "point":
            place, colon, prog = (value or "").partition(":")
            return f"{place}:{rename('prog', prog)}" if colon else value
        case "pairs":
            return tuple((rename(space, function), rename("tramp", tramp)) for function, tramp in value)
        case "targets":
            return tuple((rename(space, function), cookie) for function, cookie in value)
        case "words":
            return tuple(rename(space, function) for function in value)
        case _:
            return value if value is None else rename(space, value)


_NAMED_FIELDS: dict[type[Operation], tuple[Field[Any], ...]] = {
    kind: tuple(entry for entry in fields(kind) if "space" in entry.metadata or entry.metadata["form"] == "nested")
    for kind in OPERATIONS.values()
}
