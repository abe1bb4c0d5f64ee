"""Worlds made from what a kernel says of itself (available_filter_functions, kallsyms, BTF), and three of them as data.

A population file is untrusted input: it is bounded while it is read, and each mistake is one sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from spec import reading
from spec.errors import BadInputError
from spec.populations import hooks
from spec.prototypes import Prototype, Type
from spec.reading import matching, one_of
from spec.worlds import LOOKUPS, Function, World

__all__ = ["built_in", "load", "make_world", "read_population"]

_HERE = Path(__file__).parent
_BUILT_IN = ("linux-6.1", "linux-6.12", "linux-7.3")

_MOST_BYTES = 64 << 20
_MOST_FUNCTIONS = 1_000_000
_MOST_ARGUMENTS = 64
_LARGEST_TYPE = 65536
_LARGEST_BTF_ID = (1 << 32) - 1

_KINDS = ("INT", "PTR", "ENUM", "STRUCT", "UNION", "VOID")
# How available_filter_functions names the record of a weak function that was overridden; ftrace flags it DISABLED.
_WEAK = "__ftrace_invalid_address__"
_LISTED = ("deny", "noreturn", "fmod_ret", "sleepable", "freplace", "lsm", "lsm_sleepable", "lsm_bool")
_ATTRIBUTES = ("disabled", *_LISTED, "empty", *LOOKUPS)

_Kernel = matching("a kernel's version, MAJOR.MINOR", r"[0-9]{1,3}\.[0-9]{1,3}(?:[.+-][A-Za-z0-9_.+~-]{0,64})?")
_Symbol = matching("a symbol", r"[A-Za-z_.$][A-Za-z0-9_.$]{0,511}")
_Module = matching("a module's name", "[A-Za-z0-9_-]{1,63}")
_TypeName = matching("1 to 512 printable ASCII characters", "[ -~]{1,512}")
_Address = matching("a string of 1 to 16 hexadecimal digits", "(?:0x)?[0-9a-fA-F]{1,16}")
_TypeIndex = Annotated[int, Meta(ge=0)]
_Type = tuple[
    Annotated[str, one_of(_KINDS)],
    Annotated[int, Meta(ge=0, le=_LARGEST_TYPE)],
    Annotated[str, _TypeName],
]


class _Record(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a file's functions; args and ret are indices of types."""

    name: Annotated[str, _Symbol]
    address: Annotated[str, _Address] | None = None
    btf_id: Annotated[int, Meta(ge=1, le=_LARGEST_BTF_ID)] | None = None
    args: Annotated[tuple[_TypeIndex, ...], Meta(max_length=_MOST_ARGUMENTS)] | None = None
    ret: _TypeIndex | None = None
    variadic: bool = False
    module: Annotated[str, _Module] | None = None
    attributes: frozenset[Annotated[str, one_of(_ATTRIBUTES)]] | None = None

    def __post_init__(self) -> None:
        if (self.args is None) != (self.ret is None):
            raise ValueError(f"{self.name} has only one of args and ret")
        if self.btf_id is not None and self.args is None:
            raise ValueError(f"{self.name} has a btf_id but lacks args and ret")


class _Population(Struct, frozen=True):
    """The object of a file: functions has the records of ftrace, others what BTF names beside; the rest is ignored."""

    kernel: Annotated[str, _Kernel]
    types: tuple[_Type, ...]
    functions: Annotated[tuple[_Record, ...], Meta(max_length=_MOST_FUNCTIONS)]
    others: Annotated[tuple[_Record, ...], Meta(max_length=_MOST_FUNCTIONS)] = ()

    def __post_init__(self) -> None:
        for record in self.others:
            if record.btf_id is None:
                raise ValueError(f"{record.name} is one of the others and lacks its btf_id")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a kernel's own lists say of its functions by name. Prefixes stand for rules that look at no list."""

    deny: frozenset[str]
    noreturn: frozenset[str]
    fmod_ret: frozenset[str] = frozenset()
    fmod_ret_prefixes: tuple[str, ...] = ("security_",)
    sleepable: frozenset[str] = frozenset()
    sleepable_prefixes: tuple[str, ...] = ()
    lsm_refused: frozenset[str] = hooks.REFUSED
    lsm_sleepable: frozenset[str] = hooks.SLEEPABLE

    def of(self, name: str, *, core: bool) -> frozenset[str]:
        """The attributes of one function that BTF names; core: vmlinux's BTF, for the lists are of ids in that."""
        hook = name.removeprefix(hooks.PREFIX) if core and name.startswith(hooks.PREFIX) else ""
        found = {
            "lsm": hook and hook not in self.lsm_refused,
            "lsm_sleepable": hook in self.lsm_sleepable,
            "lsm_bool": hook in hooks.BOOL,
            "deny": core and name in self.deny,
            "noreturn": core and name in self.noreturn,
            "fmod_ret": (core and name in self.fmod_ret) or name.startswith(self.fmod_ret_prefixes),
            "sleepable": (core and name in self.sleepable) or name.startswith(self.sleepable_prefixes),
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

# Since 6.12 they stand in sleepable_lsm_hooks where CONFIG_SECURITY_PATH is on, and in 7.3 these do, too.
_PATHS = frozenset(f"path_{name}" for name in "chmod chown link mkdir rename rmdir symlink truncate unlink".split())
_SLEEPABLE_SINCE = frozenset(
    {"bdev_alloc_security", "bdev_setintegrity", "inode_post_removexattr", "inode_removexattr"},
)

_FACTS = {
    (6, 1): _Facts(deny=_MIGRATE, noreturn=_NORETURN, lsm_sleepable=hooks.SLEEPABLE | {"inet_conn_established"}),
    (6, 12): _Facts(
        deny=_MIGRATE | _RCU,
        noreturn=_NORETURN,
        fmod_ret=_MODIFIABLE,
        sleepable=_SLEEPABLE,
        lsm_sleepable=hooks.SLEEPABLE | _PATHS,
    ),
    # Without error injection 7.3 takes system calls too: check_attach_sleepable, check_attach_modify_return.
    (7, 3): _Facts(
        deny=_MIGRATE | _RCU | {"___migrate_enable"},
        noreturn=_NORETURN,
        fmod_ret=_MODIFIABLE,
        fmod_ret_prefixes=("security_", "__x64_"),
        sleepable=_SLEEPABLE,
        sleepable_prefixes=("__x64_",),
        lsm_refused=hooks.REFUSED | {"file_alloc_security"},
        lsm_sleepable=hooks.SLEEPABLE | _PATHS | _SLEEPABLE_SINCE,
    ),
}


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
    return replace(read_population(_HERE / f"{name}.json.gz"), name=name)


def read_population(path: Path) -> World:
    """The world in a population file, JSON or gzipped JSON, named by its path; BadInputError if it is malformed."""
    try:
        return _make_world(str(path), reading.load(path, _Population, _MOST_BYTES))
    except _MistakeError as mistake:
        raise BadInputError(str(mistake), str(path)) from mistake


def make_world(name: str, population: object) -> World:
    """The world of a population that is no file, as JSON's values; BadInputError if it is malformed."""
    try:
        return _make_world(name, reading.convert(population, _Population))
    except _MistakeError as mistake:
        raise BadInputError(str(mistake)) from mistake


def _make_world(name: str, population: _Population) -> World:
    _check_ids(population)
    prototypes = _prototypes(population)
    core, modules = _in_address_order(population.functions)
    others = tuple(record for record in population.others if record.module is None)
    beside = tuple(record for record in population.others if record.module is not None)
    make = _Maker(prototypes, _facts(population.kernel))
    # A bare name is vmlinux's if it has one (NAME-11), so that its functions are named first.
    first, first_others = make.all(core), make.all(others, recorded=False)
    last, last_others = make.all(modules), make.all(beside, recorded=False)
    return World(name, (*first, *last), (*first_others, *last_others))


def _facts(kernel: str) -> _Facts:
    """The facts of the nearest kernel; majors are counted as 20 minors."""
    major, minor = re.findall("[0-9]+", kernel)[:2]
    wanted = 20 * int(major) + int(minor)
    return _FACTS[min(_FACTS, key=lambda known: abs(20 * known[0] + known[1] - wanted))]


def _check_ids(population: _Population) -> None:
    """No id of one BTF may belong to two names, and none of vmlinux's to a module, whose BTF goes on behind it."""
    owners: dict[tuple[str | None, int], str] = {}
    placed = [
        (f"{place}[{index}]", record, record.btf_id)
        for place, records in _lists(population)
        for index, record in enumerate(records)
        if record.btf_id is not None
    ]
    for place, record, btf_id in sorted(placed, key=lambda one: one[1].module is not None):
        owner = owners.setdefault((record.module, btf_id), record.name)
        owner = owner if record.module is None or owner != record.name else owners.get((None, btf_id), owner)
        if owner != record.name or (record.module is not None and (None, btf_id) in owners):
            raise _MistakeError(f"{place}: {record.name} has btf_id {btf_id}, which is {owner}'s")


def _lists(population: _Population) -> tuple[tuple[str, tuple[_Record, ...]], ...]:
    return ("functions", population.functions), ("others", population.others)


_Signature = tuple[tuple[int, ...] | None, int | None, bool]


def _signature(record: _Record) -> _Signature:
    return record.args, record.ret, record.variadic


def _prototypes(population: _Population) -> dict[_Signature, Prototype | None]:
    """One prototype for all functions that have equal ones, so that slots and shapes are worked out once."""
    types = tuple(Type(name, kind, size) for kind, size, name in population.types)
    found: dict[_Signature, Prototype | None] = {}
    for place, records in _lists(population):
        for index, record in enumerate(records):
            signature = _signature(record)
            if signature not in found:
                found[signature] = _prototype(f"{place}[{index}]", record, types)
    return found


def _prototype(place: str, record: _Record, types: tuple[Type, ...]) -> Prototype | None:
    if record.args is None or record.ret is None:
        return None
    if max(*record.args, record.ret, 0) >= len(types):
        raise _MistakeError(f"{place}: {record.name} has a type beyond the {len(types)} of the file")
    return Prototype(tuple(types[each] for each in record.args), types[record.ret], record.variadic)


def _in_address_order(records: Iterable[_Record]) -> tuple[list[_Record], list[_Record]]:
    """Core functions by address, one without address behind its predecessor; and modules, as the file has them."""
    core: list[tuple[int, _Record]] = []
    modules: dict[str, list[_Record]] = {}
    place = 0
    for record in records:
        if record.module is not None:
            modules.setdefault(record.module, []).append(record)
        else:
            place = place if record.address is None else int(record.address, 16)
            core.append((place, record))
    core.sort(key=itemgetter(0))
    return [record for _, record in core], [record for group in modules.values() for record in group]


class _Maker:
    """Makes functions under unique names.

    In vmlinux and in each module the first symbol of a name has its BTF id and the facts about it. State: how often
    each name was seen, in all and in its BTF.
    """

    def __init__(self, prototypes: Mapping[_Signature, Prototype | None], facts: _Facts) -> None:
        self._prototypes, self._facts = prototypes, facts
        self._seen: Counter[str] = Counter()
        self._named: set[tuple[str | None, str]] = set()

    def all(self, records: Iterable[_Record], *, recorded: bool = True) -> tuple[Function, ...]:
        """The functions of these records; recorded: they are ftrace's."""
        return tuple(self._make(record, recorded=recorded) for record in records)

    def _make(self, record: _Record, *, recorded: bool) -> Function:
        self._seen[record.name] += 1
        count, key = self._seen[record.name], (record.module, record.name)
        btf_id = record.btf_id if key not in self._named else None
        self._named.add(key)
        attributes = record.attributes or frozenset()
        if btf_id is not None:
            attributes |= self._facts.of(record.name, core=record.module is None)
        if record.name.startswith(_WEAK):
            attributes |= {"disabled"}
        if not recorded:
            attributes |= {"unrecorded"}
        name = record.name if count == 1 else f"{record.name}@{count}"
        return Function(name, self._prototypes[_signature(record)], btf_id, record.module, attributes)
