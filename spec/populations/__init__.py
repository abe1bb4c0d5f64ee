"""Worlds made from what a kernel says of itself (available_filter_functions, kallsyms, BTF), and three of them as data.

A population file is untrusted input: it is bounded while it is read, and each mistake is one sentence.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from spec.errors import BadInputError
from spec.prototypes import Prototype, Type
from spec.worlds import Function, World

__all__ = ["built_in", "load", "read_population"]

_HERE = Path(__file__).parent
_BUILT_IN = ("linux-6.1", "linux-6.12", "linux-7.3")

_MIB = 1 << 20
_MOST_COMPRESSED = 16 * _MIB
_MOST_BYTES = 64 * _MIB
_MOST_FUNCTIONS = 1_000_000
_MOST_ARGUMENTS = 64
_LARGEST_TYPE = 65536
_LARGEST_BTF_ID = (1 << 32) - 1

_KINDS = frozenset({"INT", "PTR", "ENUM", "STRUCT", "UNION", "VOID"})
# How available_filter_functions names the record of a weak function that was overridden; ftrace flags it DISABLED.
_WEAK = "__ftrace_invalid_address__"
_ATTRIBUTES = frozenset({"disabled", "deny", "noreturn", "fmod_ret", "sleepable", "freplace"})
_FIELDS = frozenset({"name", "address", "btf_id", "args", "ret", "variadic", "module", "attributes"})
_KERNEL = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(?:[.+-][\w.+~-]{0,64})?", re.ASCII)
_SYMBOL = re.compile(r"[A-Za-z_.$][\w.$]{0,511}", re.ASCII)
_MODULE = re.compile(r"[\w-]{1,63}", re.ASCII)
_TYPE_NAME = re.compile(r"[ -~]{1,512}")
_ADDRESS = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a kernel's own lists say of its functions by name. Prefixes stand for rules that look at no list."""

    deny: frozenset[str]
    noreturn: frozenset[str]
    fmod_ret: frozenset[str] = frozenset()
    fmod_ret_prefixes: tuple[str, ...] = ("security_",)
    sleepable: frozenset[str] = frozenset()
    sleepable_prefixes: tuple[str, ...] = ()

    def of(self, name: str) -> frozenset[str]:
        """The attributes of one function that BTF names."""
        found = {
            "deny": name in self.deny,
            "noreturn": name in self.noreturn,
            "fmod_ret": name in self.fmod_ret or name.startswith(self.fmod_ret_prefixes),
            "sleepable": name in self.sleepable or name.startswith(self.sleepable_prefixes),
        }
        return frozenset(attribute for attribute, holds in found.items() if holds)


# noreturn_deny of kernel/bpf/verifier.c with Debian's configuration (KUNIT is a module, its functions are not there).
# 6.1 has no such list; that a function does not return is true there as well.
_NORETURN = frozenset(
    {
        "__ia32_sys_exit",
        "__ia32_sys_exit_group",
        "__module_put_and_kthread_exit",
        "__x64_sys_exit",
        "__x64_sys_exit_group",
        "do_exit",
        "do_group_exit",
        "kthread_complete_and_exit",
        "kthread_exit",
        "make_task_dead",
    },
)
_MIGRATE = frozenset({"migrate_disable", "migrate_enable"})
_RCU = frozenset({"__rcu_read_lock", "__rcu_read_unlock"})

# bpf_test_modify_return_ids of net/bpf/test_run.c. CONFIG_FUNCTION_ERROR_INJECTION is off in Debian's kernels, so the
# other way to be modifiable or sleepable, ALLOW_ERROR_INJECTION, is closed.
_MODIFIABLE = frozenset(
    (
        "bpf_modify_return_test bpf_modify_return_test2 bpf_modify_return_test_tp bpf_fentry_test1 "
        "update_socket_protocol"
    ).split(),
)
_SLEEPABLE = frozenset({"bpf_fentry_test1"})

_FACTS = {
    (6, 1): _Facts(deny=_MIGRATE, noreturn=_NORETURN),
    (6, 12): _Facts(deny=_MIGRATE | _RCU, noreturn=_NORETURN, fmod_ret=_MODIFIABLE, sleepable=_SLEEPABLE),
    # Without error injection 7.3 takes system calls too: check_attach_sleepable, check_attach_modify_return.
    (7, 3): _Facts(
        deny=_MIGRATE | _RCU | {"___migrate_enable"},
        noreturn=_NORETURN,
        fmod_ret=_MODIFIABLE,
        fmod_ret_prefixes=("security_", "__x64_"),
        sleepable=_SLEEPABLE,
        sleepable_prefixes=("__x64_",),
    ),
}


@dataclass(frozen=True, slots=True)
class _Record:
    """One entry of a file's functions, checked."""

    name: str
    address: int | None
    btf_id: int | None
    prototype: Prototype | None
    module: str | None
    attributes: frozenset[str]


class _MistakeError(Exception):
    """What is wrong with a population, without the file's name."""


def built_in() -> tuple[str, ...]:
    """Names of the populations that come with the project, oldest kernel first."""
    return _BUILT_IN


def load(name_or_path: str) -> World:
    """A built-in population by its name, which is read once a process, or a user's own by its path.

    BadInputError if there is none, or if it is malformed.
    """
    if name_or_path in _BUILT_IN:
        return _load_built_in(name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(_BUILT_IN)
        raise BadInputError(f"there is no population '{name_or_path}': write one of {known}, or the path of a file")
    return read_population(path)


@lru_cache(maxsize=len(_BUILT_IN))
def _load_built_in(name: str) -> World:
    return World(name, read_population(_HERE / f"{name}.json.gz").functions)


def read_population(path: Path) -> World:
    """The world in a population file, JSON or gzipped JSON, named by its path; BadInputError if it is malformed."""
    try:
        return World(str(path), _functions(_parsed(_text(path))))
    except _MistakeError as mistake:
        raise BadInputError(str(mistake), str(path)) from mistake
    except json.JSONDecodeError as error:
        raise BadInputError(f"is no JSON: {error.msg}", str(path), error.lineno) from error


def _text(path: Path) -> bytes:
    """A file's bytes, decompressed if they start like gzip."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_COMPRESSED + 1)
            if not data.startswith(b"\x1f\x8b"):
                data += file.read(_MOST_BYTES + 1 - len(data))
            elif len(data) > _MOST_COMPRESSED:
                raise _MistakeError(f"a compressed population has at most {_MOST_COMPRESSED // _MIB} MiB")
    except (OSError, ValueError) as error:
        raise _MistakeError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if data.startswith(b"\x1f\x8b"):
        data = _decompressed(data)
    if len(data) > _MOST_BYTES:
        raise _MistakeError(f"a population has at most {_MOST_BYTES // _MIB} MiB of JSON")
    return data


def _decompressed(data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _MistakeError("is damaged: it starts like gzip but does not decompress") from error


def _parsed(data: bytes) -> object:
    try:
        found: object = json.loads(data.decode())
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise _MistakeError("a population is UTF-8 text") from error
    except RecursionError as error:
        raise _MistakeError("is nested too deeply: a population is an object of lists") from error
    except ValueError as error:
        raise _MistakeError("holds a number of thousands of digits") from error
    return found


def _functions(population: object) -> tuple[Function, ...]:
    if not isinstance(population, dict):
        raise _MistakeError("a population is a JSON object with kernel, types and functions")
    facts = _facts(population.get("kernel"))
    types = _types(population.get("types"))
    rows = population.get("functions")
    if not isinstance(rows, list):
        raise _MistakeError("the population lacks its list of functions")
    if len(rows) > _MOST_FUNCTIONS:
        raise _MistakeError(f"a population has at most {_MOST_FUNCTIONS:,} functions")
    reader = _Reader(types)
    records = [reader.record(index, row) for index, row in enumerate(rows)]
    return tuple(_named(_in_address_order(records), facts))


def _facts(kernel: object) -> _Facts:
    """The facts of the nearest kernel; majors are counted as 20 minors."""
    found = _KERNEL.fullmatch(kernel) if isinstance(kernel, str) else None
    if found is None:
        raise _MistakeError('the population lacks its kernel: write "kernel": "MAJOR.MINOR"')
    wanted = 20 * int(found[1]) + int(found[2])
    return _FACTS[min(_FACTS, key=lambda known: abs(20 * known[0] + known[1] - wanted))]


def _types(rows: object) -> tuple[Type, ...]:
    if not isinstance(rows, list):
        raise _MistakeError("the population lacks its list of types")
    return tuple(_type(index, row) for index, row in enumerate(rows))


def _type(index: int, row: object) -> Type:
    if not isinstance(row, list) or len(row) != 3:
        raise _MistakeError(f"type {index}: write [KIND, size, name]")
    kind, size, name = row
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _MistakeError(f"type {index}: its kind is none of {', '.join(sorted(_KINDS))}")
    if type(size) is not int or not 0 <= size <= _LARGEST_TYPE:
        raise _MistakeError(f"type {index}: its size is no number of bytes from 0 to {_LARGEST_TYPE}")
    if not isinstance(name, str) or not _TYPE_NAME.fullmatch(name):
        raise _MistakeError(f"type {index}: its name is not 1 to 512 printable ASCII characters")
    return Type(name, kind, size)


@dataclass(slots=True)
class _Reader:
    """Checks one entry after another. What entries share is made once: equal prototypes, and the owner of a BTF id."""

    types: tuple[Type, ...]
    prototypes: dict[tuple[tuple[int, ...], int, bool], Prototype] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)

    def record(self, index: int, row: object) -> _Record:
        """One entry, checked."""
        if not isinstance(row, dict):
            raise _MistakeError(f"function {index}: write an object with name and address")
        name = row.get("name")
        if not isinstance(name, str) or not _SYMBOL.fullmatch(name):
            raise _MistakeError(f"function {index}: its name is no symbol")
        try:
            return self._record(name, row)
        except _MistakeError as mistake:
            raise _MistakeError(f"function {index} ({name}): {mistake}") from mistake

    def _record(self, name: str, row: dict[str, object]) -> _Record:
        if not row.keys() <= _FIELDS:
            unknown = min(row.keys() - _FIELDS)
            raise _MistakeError(f"unknown field {unknown[:40]!a}: write one of {', '.join(sorted(_FIELDS))}")
        btf_id, prototype = self._btf_id(name, row), self._prototype(row)
        if btf_id is not None and prototype is None:
            raise _MistakeError("it has a btf_id but lacks args and ret")
        module = row.get("module")
        if module is not None and not (isinstance(module, str) and _MODULE.fullmatch(module)):
            raise _MistakeError("its module is no module's name")
        address, attributes = _address(row.get("address")), _attributes(row.get("attributes"))
        return _Record(name, address, btf_id, prototype, module, attributes)

    def _btf_id(self, name: str, row: dict[str, object]) -> int | None:
        btf_id = row.get("btf_id")
        if btf_id is None:
            return None
        if type(btf_id) is not int or not 1 <= btf_id <= _LARGEST_BTF_ID:
            raise _MistakeError(f"its btf_id is no number from 1 to {_LARGEST_BTF_ID}")
        owner = self.owners.setdefault(btf_id, name)
        if owner != name:
            raise _MistakeError(f"its btf_id {btf_id} is that of {owner}")
        return btf_id

    def _prototype(self, row: dict[str, object]) -> Prototype | None:
        arguments, returns, variadic = row.get("args"), row.get("ret"), row.get("variadic", False)
        if type(variadic) is not bool:
            raise _MistakeError("its variadic is neither true nor false")
        if arguments is None and returns is None:
            return None
        if not isinstance(arguments, list) or returns is None:
            raise _MistakeError("args is a list of type indices and ret one type index, and neither comes alone")
        if len(arguments) > _MOST_ARGUMENTS:
            raise _MistakeError(f"it has {len(arguments)} arguments: at most {_MOST_ARGUMENTS} are taken")
        return self._interned(tuple(self._index(argument) for argument in arguments), self._index(returns), variadic)

    def _index(self, index: object) -> int:
        if type(index) is not int or not 0 <= index < len(self.types):
            raise _MistakeError(f"a type index is a number from 0 to {len(self.types) - 1}")
        return index

    def _interned(self, arguments: tuple[int, ...], returns: int, variadic: bool) -> Prototype:
        """One object for equal prototypes, so that slots and shapes are worked out once."""
        key = (arguments, returns, variadic)
        if key not in self.prototypes:
            types = tuple(self.types[index] for index in arguments)
            self.prototypes[key] = Prototype(types, self.types[returns], variadic)
        return self.prototypes[key]


def _address(text: object) -> int | None:
    if text is None:
        return None
    if not isinstance(text, str) or not _ADDRESS.fullmatch(text):
        raise _MistakeError("its address is neither null nor a string of 1 to 16 hexadecimal digits")
    return int(text, 16)


def _attributes(names: object) -> frozenset[str]:
    if names is None:
        return frozenset()
    if not isinstance(names, list) or not all(isinstance(name, str) and name in _ATTRIBUTES for name in names):
        raise _MistakeError(f"its attributes are no list of {', '.join(sorted(_ATTRIBUTES))}")
    return frozenset(names)


def _in_address_order(records: list[_Record]) -> list[_Record]:
    """Core functions by address, one without address behind its predecessor; then modules, as the file has them."""
    core = [record for record in records if record.module is None]
    places: list[int] = []
    for record in core:
        places.append(record.address if record.address is not None else places[-1] if places else 0)
    ordered = [record for _, record in sorted(zip(places, core, strict=True), key=lambda pair: pair[0])]
    modules: dict[str, list[_Record]] = {}
    for record in records:
        if record.module is not None:
            modules.setdefault(record.module, []).append(record)
    return ordered + [record for group in modules.values() for record in group]


def _named(records: Iterable[_Record], facts: _Facts) -> Iterator[Function]:
    """Functions under unique names: the first symbol of a name keeps it, with its BTF id and the facts about it."""
    seen: Counter[str] = Counter()
    for record in records:
        seen[record.name] += 1
        count = seen[record.name]
        name, btf_id = (record.name, record.btf_id) if count == 1 else (f"{record.name}@{count}", None)
        attributes = record.attributes if btf_id is None else record.attributes | facts.of(name)
        if name.startswith(_WEAK):
            attributes |= {"disabled"}
        yield Function(name, record.prototype, btf_id, record.module, attributes)
