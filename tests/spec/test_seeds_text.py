"""The text of seeds: parsing and printing are inverse, and each mistake is a sentence with file and line."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from spec import seeds
from spec.errors import BadInputError
from spec.operations import (
    FLAVOURS,
    HOW,
    KINDS,
    OPERATIONS,
    POINTS,
    STOPS,
    STOPS_AT_PROGRAMS,
    SWITCH,
    Call,
    Fail,
    Finish,
    ObserveSite,
    Operation,
)
from spec.operations import Step as TaskStep
from spec.outcomes import ERRNOS, Errno, Ok, Pending
from spec.seeds import Expectation, Seed, Step, parse_operation, parse_seed, print_operation, print_seed, read_seed

CHOICES = {"kind": KINDS, "point": POINTS, "switch": SWITCH, "flavour": FLAVOURS, "how": HOW}
LETTERS = string.ascii_letters + string.digits + "_.$@*?[]!-"
EXTREMES = (0, 1, -1, 255, -(1 << 63), (1 << 63) - 1, (1 << 64) - 1)
HEADER = "world synthetic\nsemantics linux-6.12\n---\n"


def random_name(rng: random.Random) -> str:
    # A capital in front, so that a name is never one of the keywords that may end a line.
    return rng.choice(string.ascii_uppercase) + "".join(rng.choices(LETTERS, k=rng.randrange(12)))


def random_number(rng: random.Random) -> int:
    return rng.choice(EXTREMES) if rng.random() < 0.5 else rng.getrandbits(64)


def several(rng: random.Random, make: Callable[[random.Random], Any]) -> tuple[Any, ...]:
    return tuple(make(rng) for _ in range(rng.randrange(1, 5)))


def random_word(rng: random.Random, entry: Any) -> str | None:
    if entry.default is None and rng.random() < 0.5:
        return None
    return rng.choice(CHOICES[entry.name]) if entry.name in CHOICES else random_name(rng)


def random_option(rng: random.Random, entry: Any) -> str | int | None:
    if rng.random() < 0.5:
        return None
    if entry.metadata.get("space") == "point":
        return random_stop(rng)
    return random_word(rng, entry) if entry.metadata["kind"] is str else random_number(rng)


def random_stop(rng: random.Random) -> str:
    return rng.choice((*STOPS, f"{rng.choice(STOPS_AT_PROGRAMS)}:{random_name(rng)}"))


# Values for a field, by the form that its metadata gives it.
VALUES: dict[str, Callable[[random.Random, Any], Any]] = {
    "flag": lambda rng, _: rng.random() < 0.5,
    "option": random_option,
    "word": random_word,
    "number": lambda rng, _: rng.choice((1, 2, 1 << 40)),
    "words": lambda rng, _: several(rng, random_name),
    "integers": lambda rng, _: rng.choice(((), several(rng, random_number))),
    "pairs": lambda rng, _: several(rng, lambda rng: (random_name(rng), random_name(rng))),
    "targets": lambda rng, _: several(rng, lambda rng: (random_name(rng), rng.choice((None, random_number(rng))))),
    "nested": lambda rng, _: random_operation(rng, OPERATIONS[rng.choice(list(OPERATIONS))]),
}


def random_operation(rng: random.Random, kind: type[Operation]) -> Operation:
    return kind(**{entry.name: VALUES[entry.metadata["form"]](rng, entry) for entry in fields(kind)})


def random_trace(rng: random.Random) -> tuple[str, ...]:
    """The words of a trace, with brackets that match."""
    words: list[str] = []
    for _ in range(rng.randrange(5)):
        name = random_name(rng).translate(str.maketrans("", "", "[]"))
        event = rng.choice(("ops:", "graph>", "<graph:", "direct:", "fentry:", "fmod_ret:", "body", "["))
        if event == "[":
            words += [f"{name}[", *random_trace(rng), "]"]
        else:
            words.append(rng.choice(("body", "body:patched")) if event == "body" else event + name)
    return (*words, rng.choice(("absent", f"={random_number(rng)}")))


def random_step(rng: random.Random, kind: type[Operation]) -> Step:
    operation = random_operation(rng, kind)
    if rng.random() < 0.5:
        return Step(operation)
    if isinstance(operation, Call | Finish):
        return Step(operation, Expectation(words=random_trace(rng)))
    if isinstance(operation, TaskStep):
        return Step(operation, Expectation(words=(rng.choice((random_stop(rng), "done", "absent")),)))
    if isinstance(operation, ObserveSite):
        targets = ("nop", "direct:T1", "trampoline:fentry:p1,fexit:p2", "ops:o1", "ftrace_caller", "ftrace_regs_caller")
        return Step(operation, Expectation(words=(rng.choice(targets),)))
    warn = rng.random() < 0.5
    return Step(operation, Expectation(rng.choice((Ok(warn), Pending(), Errno(rng.choice(sorted(ERRNOS)), warn)))))


@pytest.mark.parametrize("verb", OPERATIONS)
def test_parsing_gives_back_what_was_printed(verb: str) -> None:
    """For each verb, 300 random operations survive their text, and the text survives parsing."""
    rng = random.Random(verb)
    for _ in range(300):
        operation = random_operation(rng, OPERATIONS[verb])
        text = print_operation(operation)

        assert operation == parse_operation(text)
        assert text == print_operation(parse_operation(text))


def test_a_seed_survives_its_text() -> None:
    """For 100 random seeds with expectations and comments: the steps are the same, and know their lines."""
    rng = random.Random(5)
    for _ in range(100):
        steps = tuple(random_step(rng, rng.choice(list(OPERATIONS.values()))) for _ in range(20))
        seed = Seed("my worlds/pop.json", "proposal-2021", steps)
        text = print_seed(seed, ["what it shows", "in two\nlines"])
        found = parse_seed(text)

        assert (seed.world, seed.semantics) == (found.world, found.semantics)
        assert [(step.operation, step.expected) for step in steps] == [
            (step.operation, step.expected) for step in found.steps
        ]
        assert [text.split("\n")[step.line - 1] for step in found.steps] == [str(step) for step in steps]
        assert text == print_seed(found, ["what it shows", "in two\nlines"])


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("call foo2 0x10 -1", "call foo2 16 -1"),
        ("  ftrace_ops   o1\tsave_regs", "ftrace_ops o1 save_regs"),
        ("ftrace_ops o1 dynamic save_regs", "ftrace_ops o1 save_regs dynamic"),
        ("fail alloc 1", "fail alloc"),
        ("step t1 1", "step t1"),
        ("bpf_prog_load p1 fentry multi target=foo1", "bpf_prog_load p1 fentry target=foo1 multi"),
        ("ftrace_set_filter_ips o1 f1 f2 reset", "ftrace_set_filter_ips o1 f1 f2 reset"),
        ("bpf_link_create l1 p1 foo*:7 bar1", "bpf_link_create l1 p1 foo*:7 bar1"),
        ("bpf_link_create l1 p1 mod1:bar*:0x7 mod1:bar1", "bpf_link_create l1 p1 mod1:bar*:7 mod1:bar1"),
        ("bpf_link_create l1 p1 traceable(mod1:b?r*):-1", "bpf_link_create l1 p1 traceable(mod1:b?r*):-1"),
        ("bpf_prog_load p1 fexit target=mod1:bar1", "bpf_prog_load p1 fexit target=mod1:bar1"),
        ("update_ftrace_direct_add o1 mod1:bar1=T1", "update_ftrace_direct_add o1 mod1:bar1=T1"),
        ("poke poke register_ftrace_function o1", "poke poke register_ftrace_function o1"),
    ],
)
def test_one_operation_has_one_printed_form(line: str, same: str) -> None:
    """Blanks, the order of flags, defaults and hexadecimal are for writers; printing chooses one form."""
    assert same == print_operation(parse_operation(line))


def test_comments_and_blank_lines_are_left_out() -> None:
    """A # behind a blank starts a comment, in the header too; inside a word it does not."""
    text = "# title\n\nworld synthetic # small\nsemantics linux-7.3\n---\n\nfail alloc 2 # twice\n#call foo1\n"

    assert Seed("synthetic", "linux-7.3", (Step(Fail("alloc", 2), None, 7),)) == parse_seed(text)


def test_a_file_with_other_line_ends_is_the_same_seed(tmp_path: Path) -> None:
    """A mail program may turn line ends around."""
    path = tmp_path / "a.seed"
    path.write_bytes((HEADER + "call foo1 1 -> body =1\n").replace("\n", "\r\n").encode())

    assert parse_seed(HEADER + "call foo1 1 -> body =1\n").steps == read_seed(path).steps


OPERATION_MISTAKES = [
    ("ftrace_opps o1", "unknown verb 'ftrace_opps'"),
    ("ftrace_ops", "ftrace_ops lacks its ops"),
    ("ftrace_ops o1 o2", "ftrace_ops does not take 'o2'"),
    ("ftrace_ops o1 save_regs save_regs", "'save_regs' is given twice"),
    ("bpf_prog_load p1 fentry target=a target=b", "'target' is given twice"),
    ("ftrace_ops o=1", "'o=1' is no ops: a name has no blank and none of = # : ,"),
    ("set_ftrace_filter g1 a,b", "'a,b' is no glob: write GLOB or GLOB:mod:MODULE, with no blank and none of = # ,"),
    (
        "bpf_prog_load p1 uprobe",
        "unknown kind 'uprobe': write one of fentry, fexit, fmod_ret, lsm, fsession, freplace, kprobe, kretprobe",
    ),
    ("fail disk", "unknown point 'disk': write one of alloc, jit_charge, patch, register, filter"),
    ("grace_period srcu", "unknown flavour 'srcu': write one of rcu, rcu_tasks"),
    ("fail alloc 0", "'0' is no count: count from 1"),
    ("fail alloc two", "'two' is no number for count: write decimal or 0x..."),
    ("call foo1 one", "'one' is no number for arguments: write decimal or 0x..."),
    ("call foo1 18446744073709551616", "'18446744073709551616' does not fit into 64 bits"),
    ("call foo1 -9223372036854775809", "'-9223372036854775809' does not fit into 64 bits"),
    ("ftrace_set_filter_ips o1", "ftrace_set_filter_ips lacks its functions"),
    ("update_ftrace_direct_add o1 foo1", "'foo1' is none of the entries: write FUNC=TRAMP"),
    ("bpf_link_create l1 p1 foo1:7x", "'7x' is no number for cookie"),
    ("bpf_prog_load p1 fentry returns=one", "'one' is no number for returns"),
    ("poke", "an operation is missing"),
    ("poke poke", "an operation is missing"),
    ("step t1 to=nowhere", "'nowhere' is no point: write one of site, image"),
    ("step t1 to=before", "'before' is no point"),
    ("step t1 to=body how=now", "unknown how 'now': write one of spin, sleep"),
    ("step t1 to=body -> 0", "'0' is no place of a task: write a point as in to=POINT, or done"),
    ("finish t1 -> 0", "'0' is no event of a trace"),
    ("ftrace_ops o1 -> pending WARN", "'pending WARN' is no outcome"),
    ("await", "an operation is missing"),
    ("poke_step now", "poke_step does not take 'now'"),
    ("ftrace_ops o1 ->", "nothing is expected behind '->'"),
    ("ftrace_ops o1 -> EBUSY", "'EBUSY' is no outcome: write 0"),
    ("ftrace_ops o1 -> -ENOSUCH", "'-ENOSUCH' is no outcome"),
    ("ftrace_ops o1 -> 0 WARN WARN", "'0 WARN WARN' is no outcome"),
    ("call foo1 1 -> bodies", "'bodies' is no event of a trace: write events as in 'fentry:p1 body fexit:p1 =3'"),
    ("call outer 1 -> body foo1[ =1", "the brackets of the trace do not match"),
    ("call outer 1 -> ] foo1[ =1", "the brackets of the trace do not match"),
    ("site foo1 -> call", "'call' is no target of a site: write nop, direct:TRAMP, trampoline:KIND:PROG,..."),
    ("site foo1 -> nop nop", "'nop nop' is no target of a site"),
]


@pytest.mark.parametrize(("line", "mistake"), OPERATION_MISTAKES)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, mistake: str) -> None:
    """The sentence names the file, the line and the mistake."""
    path = tmp_path / "wrong.seed"
    path.write_text(f"# a comment\n{HEADER}ftrace_ops good\n\n{line}\n")

    with pytest.raises(BadInputError) as caught:
        read_seed(path)

    assert f"{path}:7: {mistake}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "wrong.seed: the header does not end: write a line '---' before the first operation"),
        ("world synthetic\n", "wrong.seed: the header does not end"),
        ("world synthetic\n---\n", "wrong.seed: the header lacks 'semantics': write a line 'semantics NAME'"),
        ("semantics linux-6.1\n---\n", "wrong.seed: the header lacks 'world'"),
        ("\nworlds synthetic\n---\n", "wrong.seed:2: unknown header line 'worlds': write 'world NAME'"),
        ("world\n---\n", "wrong.seed:1: 'world' lacks its value: write 'world NAME'"),
        ("world a\nworld b\n---\n", "wrong.seed:2: 'world' is given twice"),
        ("semantics linux-6.2\n---\n", "wrong.seed:1: unknown semantics 'linux-6.2': write one of linux-6.1"),
        ("call foo1\n", "wrong.seed:1: unknown header line 'call'"),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, text: str, mistake: str) -> None:
    """A header that lacks something has no line to name; a wrong one has."""
    path = tmp_path / "wrong.seed"
    path.write_text(text)

    with pytest.raises(BadInputError) as caught:
        read_seed(path)

    assert mistake in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, no file, or no text: each is said in one sentence."""
    with pytest.raises(BadInputError, match=r"none\.seed: cannot be read: No such file or directory"):
        read_seed(tmp_path / "none.seed")

    with pytest.raises(BadInputError, match="cannot be read: Is a directory"):
        read_seed(tmp_path)

    path = tmp_path / "binary.seed"
    path.write_bytes(b"world \xff\n")
    with pytest.raises(BadInputError, match=r"binary\.seed: is not UTF-8 text"):
        read_seed(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the bound is read."""
    monkeypatch.setattr(seeds, "MOST_BYTES", 1 << 20)
    path = tmp_path / "large.seed"
    path.write_bytes(b"#" * ((1 << 20) + 1))

    with pytest.raises(BadInputError, match="is larger than 1048576 bytes"):
        read_seed(path)
