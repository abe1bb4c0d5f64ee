"""What the system answers itself: unknown names, and misuse that would crash or corrupt the kernel.

These are the rules that spec/README.md marks Harness: NAME-1 to NAME-6, NAME-9 and NAME-10, and parts of DIRECT-3,
-5, -8 and -10 to -12. Everything else is the kernel's to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from impl.linux.ledger import Ledger, OpsRecord
from spec import operations as op
from spec.operations import Operation
from spec.outcomes import Errno

__all__ = ["refusal"]

EEXIST, EBADF, EINVAL, EOPNOTSUPP = (Errno(name) for name in ("EEXIST", "EBADF", "EINVAL", "EOPNOTSUPP"))


def refusal(operation: Operation, ledger: Ledger) -> Errno | None:
    """What the operation answers without asking the kernel; None if the kernel is to answer."""
    return _names(operation, ledger) or _lost(operation, ledger) or _misuse(operation, ledger)


def _names(operation: Operation, ledger: Ledger) -> Errno | None:
    """NAME-1 for the name that the operation makes, then NAME-2 for those that it uses."""
    spaces: Mapping[str, Mapping[str, object]] = {
        "ops": ledger.ops,
        "prog": ledger.programs,
        "link": ledger.links,
        "user": ledger.graph_users,
    }
    made = MAKES.get(type(operation), "")
    if made and getattr(operation, made) in spaces[made]:
        return EEXIST
    used = (name for name in spaces if name != made and hasattr(operation, name))
    return EBADF if any(getattr(operation, name) not in spaces[name] for name in used) else None


MAKES: Mapping[type[Operation], str] = {
    op.FtraceOps: "ops",
    op.RegisterFtraceGraph: "user",
    op.BpfProgLoad: "prog",
    op.BpfRawTracepointOpen: "link",
    op.BpfLinkCreate: "link",
}


def _lost(operation: Operation, ledger: Ledger) -> Errno | None:
    """NAME-10."""
    if isinstance(operation, op.BpfRawTracepointOpen | op.BpfLinkCreate):
        return _when(operation.prog in ledger.lost)
    return None


def _misuse(operation: Operation, ledger: Ledger) -> Errno | None:
    check = _CHECKS.get(type(operation))
    return check(operation, ledger) if check else None


def _when(condition: object, refused: Errno = EOPNOTSUPP) -> Errno | None:
    return refused if condition else None


def _filter(operation: Any, ledger: Ledger) -> Errno | None:
    record = ledger.ops[operation.ops]
    if record.enabled and record.role == "direct":
        return EOPNOTSUPP
    return _when(record.enabled and record.ipmodify and _meets_direct(operation, ledger))


def _meets_direct(operation: Any, ledger: Ledger) -> bool:
    """NAME-9; what names a function that is not there is the kernel's to refuse."""
    before, after = ledger.ops[operation.ops].filter, ledger.filter_after(operation)
    joining = after - before
    possible = bool(before) and all(map(ledger.loaded, joining))
    return possible and any(map(ledger.entry, joining))


def _notrace(operation: op.FtraceSetNotrace, ledger: Ledger) -> Errno | None:
    record = ledger.ops[operation.ops]
    return _when(record.enabled and record.role == "direct")


def _free(operation: op.FtraceFreeFilter, ledger: Ledger) -> Errno | None:
    return _when(ledger.ops[operation.ops].enabled)


def _register(operation: op.RegisterFtraceFunction, ledger: Ledger) -> Errno | None:
    return _when(ledger.ops[operation.ops].role == "direct")


def _unregister(operation: op.UnregisterFtraceFunction, ledger: Ledger) -> Errno | None:
    record = ledger.ops[operation.ops]
    return _when(record.role == "direct" or (record.ipmodify and not record.enabled))


def _unregister_single(operation: op.UnregisterFtraceDirect, ledger: Ledger) -> Errno | None:
    known = ledger.entry(operation.function)
    return _when(known and ledger.single.get(operation.function) != operation.tramp)


def _modify_single(operation: op.ModifyFtraceDirect, ledger: Ledger) -> Errno | None:
    foreign = operation.function not in ledger.single
    return _when(foreign and ledger.entry(operation.function) == operation.old)


def _direct(operation: op.RegisterFtraceDirectMulti, ledger: Ledger) -> Errno | None:
    return _when(ledger.ops[operation.ops].ipmodify)


def _unregister_direct(operation: op.UnregisterFtraceDirectMulti, ledger: Ledger) -> Errno | None:
    record = ledger.ops[operation.ops]
    if record.ipmodify:
        return EOPNOTSUPP
    other = any(tramp != operation.tramp for tramp in record.entries.values())
    return _when(_live(record) and other)


def _live(record: OpsRecord) -> bool:
    return record.role == "direct" and record.enabled


def _pairs(operation: Any, ledger: Ledger) -> Errno | None:
    """The hash that the call is given: -EINVAL where there can be none such."""
    functions = [function for function, _ in operation.entries]
    single = len(set(functions)) == len(functions)
    return _when(not (single and all(map(ledger.loaded, functions))), EINVAL)


def _add(operation: op.UpdateFtraceDirectAdd, ledger: Ledger) -> Errno | None:
    record = ledger.ops[operation.ops]
    if record.ipmodify:
        return EOPNOTSUPP
    if refused := _pairs(operation, ledger):
        return refused
    taken = any(ledger.entry(function) for function, _ in operation.entries)
    return _when(not taken and record.filter and not _live(record))


def _delete(operation: op.UpdateFtraceDirectDel, ledger: Ledger) -> Errno | None:
    record = ledger.ops[operation.ops]
    if record.ipmodify:
        return EOPNOTSUPP
    if refused := _pairs(operation, ledger):
        return refused
    fitting = all(ledger.entry(function) == tramp for function, tramp in operation.entries)
    return _when(_live(record) and fitting and not dict(operation.entries).keys() <= record.filter)


def _modify(operation: op.UpdateFtraceDirectMod, ledger: Ledger) -> Errno | None:
    record = ledger.ops[operation.ops]
    if record.ipmodify:
        return EOPNOTSUPP
    if refused := _pairs(operation, ledger):
        return refused
    foreign = any(ledger.entry(f) and f not in record.filter for f, _ in operation.entries)
    return _when(_live(record) and foreign)


_CHECKS: dict[type[Operation], Callable[[Any, Ledger], Errno | None]] = {
    op.FtraceSetFilter: _filter,
    op.FtraceSetFilterIp: _filter,
    op.FtraceSetFilterIps: _filter,
    op.FtraceSetNotrace: _notrace,
    op.FtraceFreeFilter: _free,
    op.RegisterFtraceFunction: _register,
    op.UnregisterFtraceFunction: _unregister,
    op.UnregisterFtraceDirect: _unregister_single,
    op.ModifyFtraceDirect: _modify_single,
    op.RegisterFtraceDirectMulti: _direct,
    op.ModifyFtraceDirectMulti: _direct,
    op.UnregisterFtraceDirectMulti: _unregister_direct,
    op.UpdateFtraceDirectAdd: _add,
    op.UpdateFtraceDirectDel: _delete,
    op.UpdateFtraceDirectMod: _modify,
}
