"""Bugs that the kernel once had, as mutants of the machine code in which they are mended.

Each is one change of one instruction, found by what stands there and never by its address, so that other builds of the
same code have it, too. The instructions are those of x86-64, as capstone spells them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from impl.linux.architectures import Change
from impl.linux.instruments.mutants import Mutant
from spec.errors import BadInputError

__all__ = ["NAMED", "MutantPlace", "NamedMutant", "find_named", "kernels_with", "named_like"]


@dataclass(frozen=True, slots=True)
class MutantPlace:
    """Where an instruction stands, and what is done to it.

    function: a glob of its name without suffixes. target: of what is called; text: of the instruction; before: of those
    right before it in its block, with semicolons between them. here, there and behind: of what is called in its block,
    in the one that a jump leads to, and in the one behind it. All of these are regular expressions that match as a
    whole. which: of several such places, in the order of their addresses, the one that counts.
    """

    function: str
    change: Change
    target: str = ""
    text: str = ""
    before: str = ""
    here: str = ""
    there: str = ""
    behind: str = ""
    which: int = 0

    def matches(self, mutant: Mutant) -> bool:
        """Whether a mutant is of such a place."""
        near = (*mutant.near, (), ())
        return (
            mutant.change == self.change
            and fnmatchcase(mutant.stem, self.function)
            and _matches(self.target, (mutant.target,))
            and _matches(self.text, (mutant.text,))
            and _matches(self.before, ("; ".join(mutant.before),))
            and all(_matches(*each) for each in zip((self.here, self.there, self.behind), near, strict=False))
        )


@dataclass(frozen=True, slots=True)
class NamedMutant:
    """A bug of the kernel. commit and subject: of what mended it; without a commit, the rule that it breaks.

    planted: the bug of impl/planted that is like it; empty if none is.

    kernels: those of Debian's on which a run has killed it. places: the first one that a kernel has is taken.
    """

    name: str
    commit: str
    subject: str
    planted: str
    kernels: tuple[str, ...]
    places: tuple[MutantPlace, ...]


def named_like(pattern: str) -> tuple[NamedMutant, ...]:
    """The bugs whose names a glob matches; BadInputError if there is none."""
    found = tuple(bug for bug in NAMED if fnmatchcase(bug.name, pattern))
    if not found:
        raise BadInputError(f"no bug is named '{pattern}': write one of {', '.join(bug.name for bug in NAMED)}")
    return found


def kernels_with(planted: str) -> tuple[str, ...]:
    """The kernels on which a mutant that is like a planted bug was killed, each once."""
    return tuple(dict.fromkeys(kernel for bug in NAMED if bug.planted == planted for kernel in bug.kernels))


def find_named(bug: NamedMutant, mutants: Iterable[Mutant]) -> Mutant | None:
    """The mutant that a bug is in a kernel with these mutants; None if no place is like it."""
    every = list(mutants)
    for place in bug.places:
        found = sorted((mutant for mutant in every if place.matches(mutant)), key=lambda mutant: mutant.address)
        if place.which < len(found):
            return found[place.which]
    return None


def _matches(pattern: str, texts: Iterable[str]) -> bool:
    return not pattern or any(re.fullmatch(pattern, text) for text in texts)


JUST = "(.*; )?"
"""Whatever comes before the last instruction."""

REGISTER = r"[er]\w+"

ALL: Final = ("linux-6.1", "linux-6.12", "linux-7.3")
NEWER: Final = ALL[1:]

NAMED: Final[tuple[NamedMutant, ...]] = (
    NamedMutant(
        "tramp-not-restored",
        "a124692b698b",
        "ftrace: Enable trampoline when rec count returns back to one",
        "tramp-not-restored",
        ALL,
        (
            MutantPlace(
                "__ftrace_hash_rec_update", Change.NEVER, text="je .*", before=f"{JUST}cmp {REGISTER}, 1", which=1
            ),
        ),
    ),
    NamedMutant(
        "multi-no-reset",
        "fea3ffa48c6d",
        "ftrace: Add cleanup to unregister_ftrace_direct_multi",
        "multi-no-reset",
        ALL,
        (
            MutantPlace("unregister_ftrace_direct_multi", Change.STORE, text=r"mov qword ptr \[\w+\], 0"),
            MutantPlace("unregister_ftrace_direct", Change.STORE, text=r"mov qword ptr \[\w+\], 0"),
        ),
    ),
    NamedMutant(
        "failed-register-leaves-entry",
        "7d54c15cb89a",
        "ftrace: Clean up hash direct_functions on register failures",
        "failed-register-leaves-entry",
        NEWER,
        (
            MutantPlace("register_ftrace_direct_multi", Change.CALL, target="remove_direct_functions_hash", which=1),
            MutantPlace("register_ftrace_direct", Change.CALL, target="remove_direct_functions_hash"),
        ),
    ),
    NamedMutant(
        "failed-register-spoils-ops",
        "56b3c85e153b",
        "ftrace: Fix BPF fexit with livepatch",
        "failed-register-spoils-ops",
        NEWER,
        (
            MutantPlace(
                "register_ftrace_direct",
                Change.STORE,
                text=rf"mov qword ptr \[\w+\], ({REGISTER}|0)",
                here="remove_direct_functions_hash",
            ),
        ),
    ),
    NamedMutant(
        "modify-skips-ipmodify",
        "3e9a18e1c3e9",
        "ftrace: bpf: Fix IPMODIFY + DIRECT in modify_ftrace_direct()",
        "modify-skips-ipmodify",
        NEWER,
        (
            MutantPlace("update_ftrace_direct_mod", Change.CALL, target="__ftrace_hash_update_ipmodify"),
            MutantPlace("__modify_ftrace_direct*", Change.CALL, target="__ftrace_hash_update_ipmodify"),
        ),
    ),
    NamedMutant(
        "module-regs-flag",
        "8a224ffb3f52",
        "ftrace: Setup correct FTRACE_FL_REGS flags for module",
        "module-regs-flag",
        NEWER,
        (
            MutantPlace(
                "ftrace_module_enable", Change.ALWAYS, text="je .*", before=rf"{JUST}(and|test) .*, 4(; mov .*)?"
            ),
        ),
    ),
    NamedMutant(
        "module-tramp-flag",
        "",
        "ftrace: Do not let direct or IPMODIFY ftrace_ops be added to module and set trampolines",
        "",
        ALL,
        (
            MutantPlace(
                "ftrace_module_enable",
                Change.ALWAYS,
                text="je .*",
                before=rf"{JUST}cmp qword ptr \[{REGISTER} \+ 0x90\], 0",
            ),
            MutantPlace("ftrace_module_enable", Change.ALWAYS, text="jne .*", before=rf"{JUST}cmp {REGISTER}, 1"),
        ),
    ),
    NamedMutant(
        "dup-check",
        "",
        "a program that is attached to a function already is refused (LINK-3)",
        "dup-check-per-kind",
        ALL,
        (
            MutantPlace(
                "__bpf_trampoline_link_prog",
                Change.NEVER,
                text="je .*",
                before=rf"{JUST}cmp {REGISTER}, qword ptr \[{REGISTER} \+ 0x18\]",
            ),
            MutantPlace(
                "bpf_trampoline_add_prog",
                Change.NEVER,
                text="je .*",
                before=rf"{JUST}cmp {REGISTER}, qword ptr \[{REGISTER} \+ 0x18\]",
            ),
        ),
    ),
    NamedMutant(
        "flags-not-restored",
        "",
        "an update that fails leaves a trampoline's flags as they were (FAIL-3)",
        "flags-not-restored",
        NEWER,
        (
            MutantPlace(
                "bpf_trampoline_update",
                Change.STORE,
                text=rf"mov dword ptr \[{REGISTER} \+ 0x[23]\w\], {REGISTER}",
                before=rf"{JUST}mov {REGISTER}, dword ptr \[(rsp|rbp).*\]",
            ),
        ),
    ),
    NamedMutant(
        "old-image-put",
        "0253073fb7d7",
        "bpf: Fix UAF in bpf_trampoline_multi_attach_free on update failure",
        "old-image-put",
        ("linux-7.3",),
        (
            MutantPlace(
                "bpf_trampoline_multi_detach",
                Change.NEVER,
                text="je .*",
                before=rf"{JUST}cmp {REGISTER}, qword ptr \[{REGISTER} \+ 0x\w+\]",
            ),
        ),
    ),
    NamedMutant(
        "saved-run-ctx",
        "6764e767f4af",
        "bpf: Assign bpf_tramp_run_ctx::saved_run_ctx before recursion check.",
        "saved-run-ctx-late",
        NEWER,
        (MutantPlace("__bpf_prog_enter_recur", Change.STORE, text=rf"mov qword ptr \[{REGISTER} \+ 8\], {REGISTER}"),),
    ),
    NamedMutant(
        "wrong-pageattr",
        "9ed1d9aeef58",
        "bpf: Fix panic due to wrong pageattr of im->image",
        "",
        ("linux-6.1",),
        (MutantPlace("bpf_trampoline_update", Change.CALL, target="set_memory_rw"),),
    ),
    NamedMutant(
        "modify-forgets-descriptor",
        "8a141dd7f706",
        "ftrace: Fix modify_ftrace_direct.",
        "",
        ("linux-6.1",),
        (MutantPlace("modify_ftrace_direct", Change.STORE, text=rf"mov qword ptr \[{REGISTER} \+ 0x10\], {REGISTER}"),),
    ),
    NamedMutant(
        "startup-leaks-trampoline",
        "",
        "ftrace: Free the trampoline when ftrace_startup() fails",
        "",
        ALL,
        (MutantPlace("ftrace_startup", Change.CALL, target="ftrace_trampoline_free"),),
    ),
    NamedMutant(
        "del-leaks-table",
        "",
        "a table of direct functions that was replaced is freed (SETTLE-1)",
        "",
        ("linux-7.3",),
        (MutantPlace("update_ftrace_direct_del", Change.CALL, target="call_rcu_tasks"),),
    ),
    NamedMutant(
        "recursion-runs",
        "ca06f55b9002",
        "bpf: Add per-program recursion prevention mechanism",
        "",
        ALL,
        (MutantPlace("__bpf_prog_enter_recur", Change.NEVER, text="jne .*", there="bpf_prog_inc_misses_counter"),),
    ),
    NamedMutant(
        "misses-not-counted",
        "9ed9e9ba2337",
        "bpf: Count the number of times recursion was prevented",
        "",
        ALL,
        (MutantPlace("__bpf_prog_enter_recur", Change.CALL, target="bpf_prog_inc_misses_counter"),),
    ),
    NamedMutant(
        "graph-ignores-filter",
        "c132be2c4fcc",
        "function_graph: Have the instances use their own ftrace_ops for filtering",
        "",
        NEWER,
        (MutantPlace("function_graph_enter*", Change.NEVER, text="je .*", here="ftrace_ops_test"),),
    ),
    NamedMutant(
        "frame-not-skipped",
        "",
        "an image that has called the original returns to its caller, and not to the body (IMAGE-3)",
        "",
        ALL,
        (
            MutantPlace("*arch_prepare_bpf_trampoline", Change.ALWAYS, text="je .*", there="emit_return"),
            MutantPlace("*arch_prepare_bpf_trampoline", Change.ALWAYS, text="je .*", there="cpu_wants_rethunk"),
        ),
    ),
    NamedMutant(
        "site-not-skipped",
        "",
        "an image calls the original behind the site that led to it (IMAGE-3)",
        "",
        NEWER,
        (
            MutantPlace("__arch_prepare_bpf_trampoline", Change.NEVER, text="jne .*", there="is_endbr"),
            MutantPlace(
                "__arch_prepare_bpf_trampoline",
                Change.ALWAYS,
                text="je .*",
                before=r"mov qword ptr \[rsp.*\], \w+; mov dword ptr \[rsp.*\], eax",
            ),
        ),
    ),
    NamedMutant(
        "frame-too-wide-for-a-byte",
        "473e3150e30a",
        "bpf, x86: allow function arguments up to 12 for TRACING",
        "",
        ("linux-7.3",),
        (
            MutantPlace(
                "__arch_prepare_bpf_trampoline",
                Change.ALWAYS,
                text="jbe .*",
                before=rf"lea {REGISTER}, \[{REGISTER} \+ 0x80\]; cmp {REGISTER}, 0xff",
            ),
        ),
    ),
)
