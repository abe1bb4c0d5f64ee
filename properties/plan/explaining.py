"""Why a kernel refuses a program on a function, in a tool author's words. It decides nothing: the answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from spec.abi import SLOT_BYTES
from spec.operations import LSM
from spec.prototypes import MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, Prototype
from spec.semantics import Semantics
from spec.worlds import Function, World

__all__ = ["Reason", "explain", "find_endless", "find_lost"]

READS_RETURN: Final = frozenset({"fexit", "fmod_ret", "fsession"})
PROPOSAL_SLOTS: Final = 6
# Since Linux kernel commit a0c109dcafb1 ("bpf: Add __rcu_read_{lock,unlock} into btf id deny list") (in v6.4) the first
# two are denied. __rcu_read_unlock() calls the third while a reader that was preempted, or that held up a grace period,
# has not been reported: the trampoline there ends in the same call again.
ENDLESS: Final = frozenset({"__rcu_read_lock", "__rcu_read_unlock", "rcu_read_unlock_special"})
"""Functions on which a program may have the kernel call trampolines until its stack is over; seen on 6.1 and 7.3."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a function is refused, and the rule that says so."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A function that refuses a program of this kind under these facts."""

    function: Function
    kind: str
    facts: Semantics

    @property
    def prototype(self) -> Prototype:
        """The prototype, which each function has that BTF names."""
        assert self.function.prototype is not None
        return self.function.prototype

    @property
    def lacks_kind(self) -> bool:
        """Whether the kernel has no programs of this kind at all."""
        kinds = {"fmod_ret": self.facts.fmod_ret, LSM: self.facts.lsm, "fsession": self.facts.fsession}
        return not kinds.get(self.kind, True)

    @property
    def lacks_btf(self) -> bool:
        """Whether BTF does not describe the function."""
        return self.function.btf_id is None or self.function.prototype is None


NOTRACE: Final = Reason("LINK-16", "notrace: ftrace has no record of it")
_BY_ERRNO: Final = {
    "ENOTSUPP": Reason("LINK-4", "more argument slots than the JIT takes"),
    "E2BIG": Reason("LINK-3", "as many programs as a trampoline holds"),
    "ENOENT": Reason("PROG-7", "kallsyms has no such symbol: inlined everywhere"),
    "EBUSY": Reason("LINK-16", "BPF finds an earlier symbol, without a site"),
}
_BY_FUNCTION: Final[tuple[tuple[Reason, Callable[[_Refusal], bool]], ...]] = (
    (Reason("PROG-1", "the kernel has no such programs"), lambda r: r.lacks_kind),
    (
        Reason("PROG-3", "duplicate symbol: BTF means the first"),
        lambda r: r.lacks_btf and "@" in r.function.name,
    ),
    (Reason("PROG-3", "no BTF"), lambda r: r.lacks_btf),
    (Reason("ARG-4", "a union by value"), lambda r: r.prototype.has_union and not r.facts.union_arguments),
    (Reason("ARG-4", "variable arguments"), lambda r: r.prototype.variadic),
    (Reason("ARG-4", "returns a struct or union by value"), lambda r: r.prototype.returns.by_value),
    (Reason("ARG-4", f"more than {MAX_ARGUMENTS} arguments"), lambda r: len(r.prototype.arguments) > MAX_ARGUMENTS),
    (Reason("ARG-4", f"an argument of more than {MAX_ARGUMENT_BYTES} bytes"), lambda r: not r.prototype.describable),
    (
        Reason("PROG-4", f"more than {PROPOSAL_SLOTS} argument slots"),
        lambda r: r.facts.has_parts and len(r.prototype.slots) > PROPOSAL_SLOTS,
    ),
    (
        Reason("PROG-3", f"returns more than {SLOT_BYTES} bytes"),
        lambda r: r.facts.wide_return_refused and r.kind in READS_RETURN and r.prototype.returns.size > SLOT_BYTES,
    ),
    (
        Reason("PROG-3", "its return value may not be modified"),
        lambda r: r.kind == "fmod_ret" and "fmod_ret" not in r.function.attributes,
    ),
    (
        Reason("LSM-2", "no hook of LSM, or one that is disabled"),
        lambda r: r.kind == LSM and "lsm" not in r.function.attributes,
    ),
    (Reason("PROG-3", "denied: trampolines use it themselves"), lambda r: "deny" in r.function.attributes),
    (
        Reason("PROG-3", "never returns"),
        lambda r: r.facts.noreturn_refused and r.kind in READS_RETURN and "noreturn" in r.function.attributes,
    ),
    (
        Reason("LINK-16", "__init, or notrace in a module"),
        lambda r: r.function.lookup == "outside",
    ),
)
"""In the order of the kernel's checks: the first that holds is the reason."""


def explain(errno: str, function: Function, kind: str, facts: Semantics) -> Reason:
    """The reason for which a function answered this errno; the errno itself where none is known."""
    if errno == "EBUSY" and "unrecorded" in function.attributes:
        return NOTRACE
    if errno in _BY_ERRNO:
        return _BY_ERRNO[errno]
    refusal = _Refusal(function, kind, facts)
    return next((reason for reason, holds in _BY_FUNCTION if holds(refusal)), Reason("LINK-1", f"-{errno}"))


def find_endless(functions: Iterable[Function]) -> tuple[Function, ...]:
    """Those of these functions that a trampoline itself reaches while no program counts as running (ENDLESS)."""
    found = (f for f in functions if f.symbol in ENDLESS and f.has_site and "deny" not in f.attributes)
    return tuple(sorted(found, key=lambda function: function.symbol))


def find_lost(functions: Iterable[Function], world: World) -> tuple[Function, ...]:
    """Those of these functions whose record stands before that of an overridden weak function (DEFECT-22)."""
    before = {
        function.name
        for function, behind in pairwise(world.functions)
        if "disabled" in behind.attributes and function.has_site and function.module == behind.module
    }
    return tuple(function for function in functions if function.name in before)
