"""Reports of what kernels do that no rule wants: an entry of spec/DEFECTS.md each, as text, as seed and as program.

`python -m properties.export.defects` writes docs/defects. The entry says what is wrong and where it was seen; what else
is known of it, since which commit and what mended it, stands here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from properties.export.comments import about
from properties.export.files import write_files
from properties.export.language import fold_text, templates
from properties.export.mail import item, paragraph, shorten_subject, tell_rules, tell_steps
from properties.export.program import program_files
from properties.export.recorded import RecordedSeed, record, setting_of
from properties.export.rules import cited_in
from properties.runs.corpus import DEFECTS, EVERY, SEEDS
from spec.documents import defects
from spec.seeds import read_seed

__all__ = ["DIRECTORY", "KNOWN", "DefectEntry", "KnownDefect", "entries", "report_files"]

DIRECTORY = Path("docs/defects")
RELEASES = "6.1.192, 6.12.117, 7.3.4"
NOT_KNOWN = "not known; it was not bisected."
NOT_MENDED = "no; the newest kernel that was looked at, 7.3.4, has it."
COMMENT_WIDTH = 110


@dataclass(frozen=True, slots=True)
class DefectEntry:
    """An entry of spec/DEFECTS.md. kernels: where it was seen, as the entry says it."""

    number: str
    kernels: str
    text: str


@dataclass(frozen=True, slots=True)
class KnownDefect:
    """What is known of a defect beside its entry.

    title: in a few words. since, mended: a sentence each. seed: a file that shows it; template: that of a program which
    does, where no seed can. seen: what the program ended with, by the kernels' releases.
    """

    title: str
    since: str = NOT_KNOWN
    mended: str = NOT_MENDED
    seed: Path | None = None
    template: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)


def entries() -> Mapping[str, DefectEntry]:
    """The entries by their numbers, in the order of spec/DEFECTS.md."""
    return {each.id: DefectEntry(each.id, _name(each.kernels), _plain(each.text)) for each in defects()}


def _name(kernels: str) -> str:
    return kernels.replace("all three", RELEASES)


def _plain(text: str) -> str:
    """Markdown as plain words."""
    return " ".join(text.replace("`", "").replace("**", "").split())


def report_files(entry: DefectEntry) -> dict[str, str]:
    """The files of a report by their names: a text, and where there are such a seed and a program."""
    told = KNOWN[entry.number]
    recording = _record(entry, told)
    files = {f"{entry.number}.txt": _tell(entry, told, recording)}
    if recording is not None and told.seed is not None:
        said = fold_text(about(told.seed), COMMENT_WIDTH)
        files[f"{entry.number}.seed"] = told.seed.read_text(encoding="utf-8")
        files[f"{entry.number}.c"] = program_files(recording, said)[f"{entry.number}.c"]
    elif told.template:
        values = {"number": entry.number, "about": fold_text(entry.text, COMMENT_WIDTH)}
        files[f"{entry.number}.c"] = templates().get_template(told.template).render(values)
    return files


def _record(entry: DefectEntry, told: KnownDefect) -> RecordedSeed | None:
    """The seed as the model runs it, under the defect's name."""
    return record(setting_of(Path(f"{entry.number}.seed"), read_seed(told.seed))) if told.seed else None


def _tell(entry: DefectEntry, told: KnownDefect, recording: RecordedSeed | None) -> str:
    values = {
        "subject": shorten_subject(f"{entry.number}: {told.title}"),
        "text": paragraph(entry.text),
        "facts": [line for fact in _list_facts(entry, told) for line in item(fact)],
        "number": entry.number,
        "program": bool(told.seed or told.template),
        "steps": tell_steps(recording) if recording else [],
        "seen": [line for release, said in told.seen.items() for line in item(f"{release}: {said}")],
        "rules": tell_rules(cited_in(entry.text)),
    }
    return templates().get_template("defect.txt").render(values)


def _list_facts(entry: DefectEntry, told: KnownDefect) -> Iterator[str]:
    yield f"Seen on: {entry.kernels}."
    yield f"Since: {told.since}"
    yield f"Mended: {told.mended}"


SHARING = '53cd885bc5c3 ("ftrace: Allow IPMODIFY and DIRECT ops on the same function") (in v6.0), by its source.'
MULTI = 'f64dd4627ec6 ("ftrace: Add multi direct register/unregister interface") (in v5.16), by its source.'
AS_IT_SHOULD = "the program ends with 0: the rules follow the kernel here, and the seed says what it does."
NOT_SEEN_LATER = "not known; no later kernel was seen to do it."

KNOWN: Mapping[str, KnownDefect] = {
    "DEFECT-1": KnownDefect(
        "a detach without memory for code answers 0 and leaves the image",
        'fec56f5890d9 ("bpf: Introduce BPF trampoline") (in v5.5), by its source: the release of a link only warns.',
        "in part: 7.3.4 patches the call out of the image, so that a freed program is not called; the image stays.",
        SEEDS / "detach-without-code-memory.seed",
        seen={"7.3.4": AS_IT_SHOULD},
    ),
    "DEFECT-2": KnownDefect(
        "a second try to attach resets an ops that is live",
        "the backport of 3e9a18e1c3e9 to 6.1, by which the second try is a modification.",
        "by 56b3c85e153b, which 6.12.117 and 7.3.4 have and 6.1.192 has not.",
        SEEDS / "second-try-on-a-live-ops.seed",
        seen={
            "6.1.192": "at the call of line 17 WARNING: CPU: 0 at kernel/trace/ftrace.c:7660 arch_ftrace_ops_list_func."
        },
    ),
    "DEFECT-3": KnownDefect("the filter of an IPMODIFY user widens over a direct call without asking", SHARING),
    "DEFECT-4": KnownDefect("hashes of ops that are no tracer's keep the addresses of a module"),
    "DEFECT-5": KnownDefect(
        "update_ftrace_direct_del() empties the notrace hash",
        '8d2c1233f371 ("ftrace: Add update_ftrace_direct_del function"), by its source.',
        seed=DEFECTS / "notrace-hash-goes-with-a-direct-call.seed",
        seen={"7.3.4": "after line 11 foo2 shows (1) RD direct:T2 direct-->direct:T2."},
    ),
    "DEFECT-6": KnownDefect(
        "a program attaches through the trampoline of a BTF that has gone",
        mended="yes: on 6.12.117 and 7.3.4 a program holds the module of its target.",
    ),
    "DEFECT-7": KnownDefect("the flag of set_graph_function outlives a frame that was not recorded"),
    "DEFECT-8": KnownDefect("enabled_functions names a neighbour of a trampoline image", mended=NOT_SEEN_LATER),
    "DEFECT-9": KnownDefect("BPF attaches by name to the first of several functions, traced or not"),
    "DEFECT-10": KnownDefect(
        "a notrace hash leaves R at a record that no ops covers",
        mended=NOT_SEEN_LATER,
        seed=DEFECTS / "regs-stay-at-a-record-without-ops.seed",
        seen={"6.1.192": "after line 13 foo1 shows (1) R ops:o2."},
    ),
    "DEFECT-11": KnownDefect(
        "the handshake with IPMODIFY is made for functions that have gone",
        SHARING,
        seed=DEFECTS / "handshake-for-functions-that-have-gone.seed",
        seen={"6.12.117": "line 12 is answered by -EBUSY."},
    ),
    "DEFECT-12": KnownDefect(
        "bpf_get_func_arg() inlined takes 64 bits of an index that is a u32",
        'f92c1e183604 ("bpf: Add get_func_[arg|ret|arg_cnt] helpers") (in v5.17), by its source.',
        template="wide-index.c",
        seen={
            "6.1.192": "the program never ends: its task dies in the image, and what it left waits for it.",
            "6.12.117": "the same.",
            "7.3.4": "BUG: unable to handle page fault, in the program; its task is killed.",
        },
    ),
    "DEFECT-13": KnownDefect(
        "direct entries with another address stay for ever",
        MULTI,
        seed=EVERY / "direct-entries-with-another-address-stay.seed",
        seen={RELEASES: AS_IT_SHOULD},
    ),
    "DEFECT-14": KnownDefect(
        "unregister_ftrace_function() of a direct ops leaves its entries",
        MULTI,
        seed=EVERY / "a-direct-ops-leaves-as-a-plain-one.seed",
        seen={RELEASES: AS_IT_SHOULD},
    ),
    "DEFECT-15": KnownDefect("an IPMODIFY user that is not enabled ends the sharing of one that is", SHARING),
    "DEFECT-16": KnownDefect("trampolines place arguments of 16 bytes by their sizes alone"),
    "DEFECT-17": KnownDefect(
        "a program is freed while a task may still call it",
        mended="yes: 7.3.4 frees programs after a grace period of RCU tasks too, by its source.",
        template="freed-program.c",
        seen={
            "6.1.192": "with the argument lsm: int3 in what was the program, and Kernel panic.",
            "6.12.117": "BUG: unable to handle page fault, RIP: __bpf_prog_enter_recur+0x35.",
            "7.3.4": "the program ends with 0.",
        },
    ),
    "DEFECT-18": KnownDefect("attaching after ftrace has died answers 0 where direct_ops is live"),
    "DEFECT-19": KnownDefect(
        "set_ftrace_notrace of the newest user of the graph tracer is passed over",
        mended="yes: 7.3.4 has rebuild_hashes() in place of intersect_hashes().",
    ),
    "DEFECT-20": KnownDefect("a notrace hash that holds the whole filter makes the graph tracer trace everything"),
    "DEFECT-21": KnownDefect(
        "a detach after ftrace has died frees an ops that is on ftrace_ops_list",
        mended="yes: in 7.3.4 one static direct_ops serves every trampoline.",
    ),
    "DEFECT-22": KnownDefect(
        "BPF attaches to the record of an overridden weak function behind the function",
        'aebfd12521d9 ("x86/ibt,ftrace: Search for __fentry__ location") (in v5.18), by its source.',
    ),
    "DEFECT-23": KnownDefect(
        "what leaves while kernel.ftrace_enabled is 0 ends ftrace later",
        mended="yes: 7.3.4 refuses to turn ftrace off.",
        seed=SEEDS / "sysctl-then-the-last-ops-ends-ftrace.seed",
        seen={"6.12.117": AS_IT_SHOULD},
    ),
    "DEFECT-24": KnownDefect("closing a tracing_multi link without memory frees images that are in place"),
    "DEFECT-25": KnownDefect("a user of the graph tracer that goes without memory leaves its function covered"),
    "DEFECT-26": KnownDefect("a user of the graph tracer that could not be registered never can be"),
    "DEFECT-27": KnownDefect("update_ftrace_direct_mod() asks trampolines of neighbours without their locks"),
    "DEFECT-28": KnownDefect("ftrace_set_filter() of a glob answers 0 where it had no memory for all functions"),
    "DEFECT-29": KnownDefect("closing set_ftrace_filter keeps the old filter where it had no memory, and tells nobody"),
    "DEFECT-30": KnownDefect("a probe of the scheduler that found no memory is taken away with a WARN"),
    "DEFECT-31": KnownDefect(
        "a program on rcu_read_unlock_special calls itself without end",
        template="endless-unlock.c",
        seen={
            "6.1.192": "the program ends with 0.",
            "6.12.117": "the program ends with 0.",
            "7.3.4": "no answer within 100 s; on bpf_fentry_test1 instead, the program ends with 0.",
        },
    ),
    "DEFECT-32": KnownDefect(
        "fprobes at returns warn where a frame of the graph tracer returns that they did not take"
    ),
    "DEFECT-33": KnownDefect(
        "tables of direct calls are lost where one call exchanges them more than once",
        since='f64dd4627ec6 ("ftrace: Add multi direct register/unregister interface"), by the patch that is named.',
        mended='yes: d05cb470663a ("ftrace: Fix modification of direct_function hash while in use") (in v6.7).',
    ),
    "DEFECT-34": KnownDefect("a module that goes without memory for a list of addresses is told by a WARN"),
    "DEFECT-35": KnownDefect("functions stay covered by the ops of fprobes where a link had no memory to be closed"),
    "DEFECT-36": KnownDefect("the first link of fprobes at returns warns where it is refused for lack of memory"),
    "DEFECT-37": KnownDefect(
        "a direct call is forgotten that ftrace, once dead, leaves in place",
        mended="yes: later kernels have no such API.",
    ),
    "DEFECT-38": KnownDefect("a module has no sites where there was no memory for its records"),
    "DEFECT-39": KnownDefect(
        "graph_ops covers everything where its newest user waits for a module",
        mended="yes: 7.3.4 has rebuild_hashes() in place of append_hashes().",
    ),
    "DEFECT-40": KnownDefect(
        "a filter that waits for a module and finds nothing in it traces everything",
        '8c08f0d5c6fb ("ftrace: Have cached module filters be an active filter"), by its subject.',
    ),
    "DEFECT-41": KnownDefect(
        "a line of set_ftrace_filter that lacks its module is a NULL pointer",
        '673feb9d76ab ("ftrace: Add :mod: caching infrastructure to trace_array"), by its subject.',
    ),
    "DEFECT-42": KnownDefect("a BPF LSM program lifts what another one denies, by the upper half of what it returns"),
    "DEFECT-43": KnownDefect("a module's BTF lacks a type, and the types behind it have other ids, for lack of memory"),
    "DEFECT-44": KnownDefect("an image is freed under a task that came to it before and then sleeps in a program"),
    "DEFECT-45": KnownDefect(
        "set_graph_function shows functions twice, and others not at all",
        'b9b0c831bed2 ("ftrace: Convert graph filter to use hash tables"), by its subject.',
    ),
    "DEFECT-46": KnownDefect("set_graph_function takes what it had memory for, or nothing, and answers 0"),
}


def main() -> None:
    """Write every report."""
    for entry in entries().values():
        write_files(DIRECTORY, report_files(entry))


if __name__ == "__main__":
    main()
