"""Findings that are known: what a kernel does wrong under a fault, and stands in spec/DEFECTS.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["DEFECTS", "KNOWN", "KnownFinding", "defect_of"]


@dataclass(frozen=True, slots=True)
class KnownFinding:
    """operation: the beginning of its line; told: something in the finding's text; where: something in its call chain.

    All are regular expressions; an empty `where` is for findings that show themselves who is to blame.
    """

    defect: str
    operation: str
    told: str
    where: str = ""


NO_CHAIN: Final = r"\A\Z"
"""The kernel tells of no allocation that is made with __GFP_NOWARN."""

HASHES: Final = r"\b_*ftrace_hash_move_and_update_\w+(\.\w+)* < (.* < )?ftrace_regex_release\b"
"""Where a file of filters is closed, and the hash that was written is put in place of the old one."""

KNOWN: Final[tuple[KnownFinding, ...]] = (
    KnownFinding("DEFECT-24", "bpf_link_detach ", r"WARNING: .*\bbpf_trampoline_multi_detach\+"),
    KnownFinding("DEFECT-1", "bpf_link_detach ", r"WARNING: .*\bbpf_tracing_link_release\+"),
    KnownFinding("DEFECT-25", "unregister_ftrace_graph ", r"the model says: \w+ nop\n.* says: \w+ \(1\) ops:graph_ops"),
    KnownFinding(
        "DEFECT-28",
        r"ftrace_set_(filter|notrace) \w+ [^!]",
        r"diverges in sites at step \d+: ftrace_set_",
        r"\benter_record < match_records[.\w]* < ftrace_set_hash\b",
    ),
    KnownFinding("DEFECT-26", "register_ftrace_graph ", r"says:\n +-E(BUSY|EXIST) WARN\n"),
    KnownFinding(
        "DEFECT-30",
        "register_ftrace_graph ",
        r"WARNING: .*\btracepoint_probe_unregister\+",
        r"\btracepoint_probe_register < tracing_start_sched_switch\b",
    ),
    KnownFinding(
        "DEFECT-35",
        "bpf_link_detach ",
        r"diverges in sites at step \d+: bpf_link_detach [\s\S]* ops:(graph_ops|fprobe)\b",
        r"\b(unregister_fprobe|bpf_kprobe_multi_link_release)",
    ),
    KnownFinding(
        "DEFECT-36",
        "bpf_link_create ",
        r"says:\n +-ENOMEM WARN\n",
        r"\bregister_ftrace_graph < register_fprobe_ips < bpf_kprobe_multi_link_attach\b",
    ),
    KnownFinding("DEFECT-38", "init_module ", r"says:\s+-EINVAL\b", r"\bftrace_process_locs < ftrace_module_init\b"),
    KnownFinding("DEFECT-43", "init_module ", r"diverges in outcome [\s\S]* says:\s+-EINVAL\b", NO_CHAIN),
    KnownFinding("DEFECT-34", "delete_module ", r"WARNING: .*\bfprobe_module_callback\+"),
    KnownFinding(
        "DEFECT-46",
        r"set_graph_(function|notrace) ",
        r"diverges in trace at step \d+: call ",
        r"\bftrace_graph_(set_hash|release)\b",
    ),
    KnownFinding(
        "DEFECT-29", r"set_ftrace_(filter|notrace) ", r"diverges in (sites|file) at step \d+: set_ftrace_", HASHES
    ),
)

DEFECTS: Final = frozenset(each.defect for each in KNOWN)
"""A kernel is asked by name for defects that a search does not ask it for."""


def defect_of(operation: str, told: str, where: str, known: Iterable[KnownFinding] = KNOWN) -> str:
    """The defect that a finding shows; empty if it is none of them."""
    return next((each.defect for each in known if _shows(each, operation, told, where)), "")


def _shows(each: KnownFinding, operation: str, told: str, where: str) -> bool:
    """Whether all three match."""
    return all((re.match(each.operation, operation), re.search(each.told, told), re.search(each.where, where)))
