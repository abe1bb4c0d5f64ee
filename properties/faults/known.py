"""Findings that are known: what a kernel does wrong under a fault, and stands in spec/DEFECTS.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["KNOWN", "KnownFinding", "defect_of"]


@dataclass(frozen=True, slots=True)
class KnownFinding:
    """operation: the beginning of its line; told: something in the finding's text. Both are regular expressions."""

    defect: str
    operation: str
    told: str


KNOWN: Final[tuple[KnownFinding, ...]] = (
    KnownFinding("DEFECT-24", "bpf_link_detach ", r"WARNING: .*\bbpf_trampoline_multi_detach\+"),
    KnownFinding("DEFECT-1", "bpf_link_detach ", r"WARNING: .*\bbpf_tracing_link_release\+"),
    KnownFinding("DEFECT-25", "unregister_ftrace_graph ", r"the model says: \w+ nop\n.* says: \w+ \(1\) ops:graph_ops"),
    KnownFinding("DEFECT-28", r"ftrace_set_(filter|notrace) \w+ [^!]", r"diverges in sites at step \d+: ftrace_set_"),
    KnownFinding("DEFECT-26", "register_ftrace_graph ", r"says:\n +-E(BUSY|EXIST) WARN\n"),
)


def defect_of(operation: str, told: str, known: Iterable[KnownFinding] = KNOWN) -> str:
    """The defect that a finding shows; empty if it is none of them."""
    found = (each.defect for each in known if re.match(each.operation, operation) and re.search(each.told, told))
    return next(found, "")
