"""The words that the verb `plan` is given: probes, programs of bpftrace and lists of retsnoop, read as tools do."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from properties.__main__ import main
from properties.plan.expanding import expansions
from properties.plan.planning import plan
from properties.plan.probes import Probe, parse_probe, snoop
from properties.plan.selecting import parse_lists
from spec import populations
from spec.errors import BadInputError
from spec.semantics import PRESETS
from spec.worlds import World, synthetic
from tests.support.plans import parsed, printed, read


@pytest.mark.parametrize(
    ("pattern", "mistake"),
    [
        ("foo*", "'foo*' is no pattern: write KIND:GLOB, such as fentry:foo*"),
        ("mod1:bar*", "'mod1:bar*' has no kind: write fentry:mod1:bar*, for example"),
        ("fentry:traceable(foo*)", "'fentry:traceable(foo*)' is how a seed spells it: write fentry:foo*"),
        ("fentry:mod1:traceable(*)", "write fentry:mod1:*, planned as tools expand it"),
        ("fexit.s/foo1", "'fexit.s/foo1' is sleepable, which no plan is: write fexit:foo1"),
        ("fentry:foo1 fexit:foo1", "'fentry:foo1 fexit:foo1' has blanks: write KIND:GLOB without, and commas between"),
        ("fentry:foo1 /pid/", "'fentry:foo1 /pid/' has blanks"),
        ("fentry:", "'fentry:' is no pattern: write KIND:GLOB"),
        (":foo", "':foo' is no pattern: write KIND:GLOB"),
        ("kprobe:foo*", "unknown kind 'kprobe' in 'kprobe:foo*': write fentry:foo* to plan trampolines instead"),
        ("uprobe:foo*", "unknown kind 'uprobe' in 'uprobe:foo*': write one of fentry, kfunc, fexit, kretfunc"),
        ("freplace:foo*", "unknown kind 'freplace'"),
        ("fentry:!foo*", "'fentry:!foo*' asks for removal: write the glob without '!'"),
        ("fentry:nowhere*", "'fentry:nowhere*' matches no function of the world synthetic"),
        ("fentry:5", "'fentry:5' matches no function of the world synthetic"),
    ],
)
def test_a_pattern_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], pattern: str, mistake: str) -> None:
    """The front door exits with 2 and says what to write instead."""
    with pytest.raises(BadInputError) as caught:
        parse_probe(pattern, 1, synthetic())

    assert mistake in str(caught.value)
    assert main(["plan", "fentry:foo1", pattern, "--world", "synthetic"]) == 2
    assert mistake in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["fentry:vmlinux:foo1"], [("fentry", ["foo1"])]),
        (["kfunc:mod1:bar[12]"], [("fentry", ["bar1", "bar2"])]),
        (["kretfunc:m*:*1"], [("fexit", ["bar1", "bar11"])]),
        (["fentry:foo1,fexit:foo2 , fentry:foo3"], [("fentry", ["foo1"]), ("fexit", ["foo2"]), ("fentry", ["foo3"])]),
        (["kfunc:foo1 /pid == 7/ { if (1) { @[func] = count(); } }"], [("fentry", ["foo1"])]),
        (
            ["kfunc:foo1 { @a = 1 } kretfunc:foo1, kretfunc:foo2 { @b = 2 }", "fexit:outer"],
            [("fentry", ["foo1"]), ("fexit", ["foo1"]), ("fexit", ["foo2"]), ("fexit", ["outer"])],
        ),
    ],
)
def test_probes_are_read_as_bpftrace_writes_them(words: list[str], found: list[tuple[str, list[str]]]) -> None:
    """Modules, commas, and whole one-liners with predicates and blocks."""
    probes = read(*words)

    assert found == [(probe.kind, [function.name for function in probe.matched]) for probe in probes]
    assert [f"P{number}" for number in range(1, len(found) + 1)] == [probe.name for probe in probes]


@pytest.mark.parametrize(
    ("word", "mistake"),
    [
        ("kfunc:foo1 { @a = 1", "the braces of 'kfunc:foo1 { @a = 1' do not match"),
        ("fentry::foo1", "'fentry::foo1' is no pattern: write KIND:GLOB, such as fentry:vfs_*, or KIND:MODULE:GLOB"),
        (
            "fentry:nowhere:foo1",
            "'fentry:nowhere:foo1' names no module of the world synthetic: write one of vmlinux, mod1",
        ),
        ("bpftrace -e 'kfunc:foo1", "the quotes of '-e 'kfunc:foo1' do not match: write the probes alone"),
        ("bpftrace -v", "there is nothing to plan"),
        ("retsnoop -e", "retsnoop: argument -e/--entry: expected one argument: write GLOB behind it"),
        ("retsnoop -c bpf", "retsnoop's cases are not known here: write the globs of a case by -e, -a and -d"),
        ("/nowhere/opens.bt", "/nowhere/opens.bt: a script of bpftrace: cannot be read: No such file or directory"),
        ("sudo", "there is nothing to plan"),
        ("{ }", "'{ }' is no pattern"),
    ],
)
def test_a_word_that_is_no_probe_is_refused(capsys: pytest.CaptureFixture[str], word: str, mistake: str) -> None:
    """One sentence says what is wrong."""
    assert main(["plan", word, "--world", "synthetic"]) == 2

    (sentence,) = capsys.readouterr().err.splitlines()
    assert mistake in sentence


@pytest.mark.parametrize(
    ("pattern", "answers_of_73"),
    [
        ("fentry:vmlinux:x86*", [("vmlinux", 129, "ENOENT", 25), ("vmlinux", 104, "", 0)]),
        ("fexit:vmlinux:do_*", [("vmlinux", 296, "ENOENT", 41), ("vmlinux", 257, "EINVAL", 2)]),
        ("fentry:t_*", [("vmlinux", 7, "ENOENT", 7), ("vmlinux", 3, "ENOENT", 3)]),
        ("fentry:ext4:ext4_sync*", [("ext4", 3, "", 0), ("ext4", 3, "", 0)]),
    ],
)
def test_one_call_is_told_as_either_tool_expands_it(
    pattern: str, answers_of_73: list[tuple[str, int, str, int]]
) -> None:
    """What 7.3.4 answered to these ids, and what must be left out (GLOB-6, LINK-7); without it the call attaches."""
    world, semantics = populations.load("linux-7.3"), PRESETS["linux-7.3"]
    (probe,) = parsed(world, [pattern])
    attached = plan([probe], semantics).attached[0]
    found = list(expansions(probe, attached, world, semantics))

    assert answers_of_73 == [(one.btf, one.count, one.errno, len(one.left_out)) for one in found]
    assert [] == list(expansions(probe, attached, world, PRESETS["linux-6.12"]))


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("f:foo1,fr:foo2", [("fentry", ["foo1"]), ("fexit", ["foo2"])]),
        (
            'config = { a = "warn" } BEGIN { @a = 1 } i:s:1 { exit() } kfunc:foo1 { @ = 1 } END { }',
            [("fentry", ["foo1"])],
        ),
        ('kfunc:foo1 { printf("}{ \\"%d", 1); /* { */ exit(); // }\n }', [("fentry", ["foo1"])]),
        ("kfunc:foo1 /@a[tid] && pid/2 == 1/ { @ = 1 }", [("fentry", ["foo1"])]),
        ("kfunc:foo1/pid == 1/{ @ = 1 }", [("fentry", ["foo1"])]),
        (
            "uprobe:/bin/sh:main /pid/ { } kfunc:foo1,\nkfunc:foo2\n/pid/ { }",
            [("fentry", ["foo1"]), ("fentry", ["foo2"])],
        ),
        (
            """#!/usr/bin/bpftrace
            #include <linux/fs.h>
            struct a { int b; }; union c { int d; }
            let @m = hash(5); import "lib";
            macro add(a, b) { a + b }
            fn f($a : int64, $b : int64): int64 { return 1; }
            kfunc:foo1 { @ = 1 }""",
            [("fentry", ["foo1"])],
        ),
        ("tracepoint:a:b, kfunc:foo1 { } software:faults:1 { }", [("fentry", ["foo1"])]),
        (f"kfunc:foo1 {'{' * 50_000}{'}' * 50_000}", [("fentry", ["foo1"])]),
        ("'kfunc:foo1'", [("fentry", ["foo1"])]),
        ("“kfunc:foo1”", [("fentry", ["foo1"])]),
        ('SEC("fentry/foo1")', [("fentry", ["foo1"])]),
        ("fexit.multi/mod1:bar1", [("fexit", ["bar1"])]),
        ("bpftrace -e 'kfunc:foo1 { printf(\"%d, \", pid); }'", [("fentry", ["foo1"])]),
        ("$ sudo /usr/bin/bpftrace -ve 'kfunc:foo1 { }' | head", [("fentry", ["foo1"])]),
        ("bpftrace -lv 'kfunc:foo1'", [("fentry", ["foo1"])]),
        ("fentry:s*(struct pair two, ...)", [("fentry", ["split", "spill"])]),
        ("fentry:foo1(long int), fexit:foo1(signed long)", [("fentry", ["foo1"]), ("fexit", ["foo1"])]),
        ("fentry:*(bool)", [("fentry", ["narrow"])]),
        ("fentry:(struct pair)", [("fentry", ["split", "spill"])]),
        ("fentry:*( pair , int ), fexit:vmlinux:s*(char)", [("fentry", ["split"]), ("fexit", ["spill"])]),
    ],
)
def test_whole_programs_and_types_are_read(word: str, found: list[tuple[str, list[str]]]) -> None:
    """What attaches to no function is passed over; strings and comments may hold braces; types stand in parentheses."""
    probes = read(word)

    assert found == [(probe.kind, [function.name for function in probe.matched]) for probe in probes]


@pytest.mark.parametrize("world", populations.built_in())
def test_functions_that_take_a_pointer_to_a_struct(world: str) -> None:
    """More than the 1,400 of pwru's kind: qualifiers do not count, and what is nearly called so does."""
    functions = populations.load(world)
    (found,) = read("fentry:*(struct sk_buff *)", world=functions)
    (short,) = read("fentry:*(sk_buff*)", world=functions)
    (both,) = read("fentry:*(struct sk_buff *, struct sock *)", world=functions)
    named = [{argument.name for argument in f.prototype.arguments} for f in found.matched if f.prototype]

    assert found.matched == short.matched
    assert set(both.matched) < set(found.matched)
    assert 1400 < len(found.matched) == len(named)
    assert all(names & {"struct sk_buff *", "const struct sk_buff *"} for names in named)
    assert any("struct sk_buff *" not in names for names in named)


def test_a_script_is_read_from_its_file(tmp_path: Path) -> None:
    """By its path, whatever it is called, and as bpftrace's command line names it."""
    path = tmp_path / "opens"
    path.write_text("BEGIN { @ = 1 }\n// all, of them\nkfunc:foo1,\nkretfunc:foo2\n{ @[func] = count(); }\n")

    for word in str(path), f"bpftrace -v {path}":
        assert [("fentry", "kfunc:foo1"), ("fexit", "kretfunc:foo2")] == [(p.kind, p.pattern) for p in read(word)]


def test_a_command_line_of_retsnoop_is_its_lists(capsys: pytest.CaptureFixture[str]) -> None:
    """As one word, or as several; its other options are passed over."""
    words = "retsnoop -F -e foo? --allow=outer -d foo3 -T -n sh"
    lines = printed(capsys, words, "--world", "synthetic")
    options = printed(capsys, "retsnoop", "-e", "foo?", "-a", "outer", "-d", "foo3", "--world", "synthetic")

    assert "P1 -e 'foo?' -a 'outer' -d 'foo3': 7" in " ".join(lines)
    assert lines == options


@pytest.mark.parametrize("of", ["{}", ",", "/*", '"', "(", "[", "?", "*a", " /", "\n#", "let "])
def test_nonsense_is_refused_at_once(capsys: pytest.CaptureFixture[str], of: str) -> None:
    """A hundred thousand letters of it: one short sentence. (Time that grows with the square would be hours.)"""
    assert main(["plan", f"fentry:{of * 30_000}", "--world", "synthetic"]) == 2
    assert main(["plan", of * 30_000, "--world", "synthetic"]) == 2

    assert 500 > max(map(len, capsys.readouterr().err.splitlines()))


def snooped(world: World, *, entry: str, allow: str = "", deny: str = "") -> list[Probe]:
    lists = (parse_lists(option, texts.split()) for option, texts in (("-e", entry), ("-a", allow), ("-d", deny)))
    return snoop(*lists, 1, world)


def test_retsnoop_attaches_fentry_and_fexit_to_what_its_lists_choose() -> None:
    """Entry and allowed functions without denied ones, of vmlinux unless a module is named, of up to six arguments."""
    probes = snooped(synthetic(), entry="foo? outer", allow="bar2 bar1[mod*] narrow spill", deny="foo[2] foo3*")

    assert [("P1", "fentry"), ("P2", "fexit")] == [(probe.name, probe.kind) for probe in probes]
    assert ["foo0", "foo1", "foo2", "foo4", "foo5", "foo6", "outer", "narrow", "bar1"] == [
        function.name for function in probes[0].matched
    ]
    assert {"a prototype that retsnoop does not take": 4} == probes[1].passed_over


def test_retsnoop_denies_functions_of_itself() -> None:
    """Of 7.3 it leaves out what is delicate, what is ambiguous, and what returns a pointer to no struct."""
    (probe, _) = snooped(
        populations.load("linux-7.3"), entry="vfs_*", allow="migrate_* rcu_read_unlock* t_next kstrdup*"
    )
    chosen = {function.symbol for function in probe.matched}

    assert {"vfs_read", "migrate_huge_page_move_mapping"} < chosen
    assert not {"migrate_disable", "rcu_read_unlock_strict", "t_next", "kstrdup"} & chosen
    assert 4 == len(probe.passed_over)


def test_a_glob_of_retsnoop_is_of_vmlinux_unless_it_names_a_module() -> None:
    """Also in a call of its own for a module that another glob names."""
    world, semantics = synthetic(), PRESETS["linux-7.3"]
    (probe, _) = snoop(parse_lists("-e", ["*1", "bar2 [mod1]"]), (), (), 1, world)
    found = expansions(probe, plan([probe], semantics).attached[0], world, semantics)

    assert ["foo1", "bar2"] == [function.name for function in probe.matched]
    assert [("vmlinux", 1), ("mod1", 1)] == [(one.btf, one.count) for one in found]


def test_lists_of_thousands_of_names_cost_what_short_ones_do() -> None:
    """As retsnoop prints them and --left-out writes them. (Each name tried on each function would be an hour.)"""
    world = populations.load("linux-7.3")
    names = [function.symbol for function in world.functions if function.module is None]
    allowed = parse_lists("-a", names[1:9000:2])
    (probe, _) = snoop(parse_lists("-e", ["vfs_*"]), allowed, parse_lists("-d", names[::2]), 1, world)
    passed = probe.selection.expand(world, "traceable", "vmlinux")

    assert 400 > len(probe.pattern)
    assert 3000 < len(probe.matched) < 4600
    assert not {function.symbol for function in probe.matched} & set(names[::2])
    assert set(probe.matched) == set(passed)


def test_lists_come_from_files(tmp_path: Path) -> None:
    """@FILE has globs between spaces and lines."""
    path = tmp_path / "list"
    path.write_text("foo1 foo2\n\nbar*[mod1]\n")

    assert ["foo1", "foo2", "bar* [mod1]"] == list(map(str, parse_lists("-d", [f"@{path}"])))


def test_the_deny_list_holds_for_probes(capsys: pytest.CaptureFixture[str]) -> None:
    """--deny leaves functions out of a probe, and so out of a call as libbpf expands it."""
    lines = printed(capsys, "fentry:vfs_*", "-d", "vfs_caches_init*", "--deny", "vfs_read", "--semantics", "linux-7.3")

    assert "P1 fentry:vfs_*: 78 match, attached 75" in lines
    assert any("as libbpf expands it: 75 functions, attached." in f"{line} {after}" for line, after in pairwise(lines))


def test_what_is_left_out_comes_with_its_reasons_and_as_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """41 functions of do_* make one call fail, for four reasons; without all that the file names it attaches."""
    path, kernel = tmp_path / "skip", ("--semantics", "linux-7.3")
    text = " ".join(printed(capsys, "fexit:do_*", *kernel, "--left-out", str(path)))
    after = " ".join(printed(capsys, "fexit:do_*", *kernel, "-d", f"@{path}"))

    assert (
        "296 functions, -ENOENT. It attaches without these 41: PROG-3 never returns (2): do_exit, do_group_exit" in text
    )
    assert "LINK-16 __init, or notrace in a module (15): do_allocate_snapshot, do_collect," in text
    assert 41 == len(path.read_text().splitlines())
    assert "over vmlinux, as libbpf expands it: 255 functions, attached." in after


def test_what_is_left_out_of_modules_names_them(tmp_path: Path) -> None:
    """As retsnoop writes it; a file that cannot be written is told."""
    path = tmp_path / "skip"

    assert main(["plan", "fentry:xfs:*", "--semantics", "linux-7.3", "--left-out", str(path)]) == 0
    assert all(re.fullmatch(r"[\w.]+\[xfs\]", line) for line in path.read_text().splitlines())
    assert path.read_text()
    assert main(["plan", "fentry:foo1", "--world", "synthetic", "--left-out", str(tmp_path / "no" / "skip")]) == 2


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ([], "there is nothing to plan: write a probe, such as fentry:vfs_*, or retsnoop's -e GLOB"),
        (["-a", "foo*"], "-a names what retsnoop traces beside its entry functions: write -e GLOB, too"),
        (["-e", ":kernel/bpf/*.c"], "-e ':kernel/bpf/*.c' names source files, which a world does not know"),
        (["-e", "foo*", "-d", "**"], "-d '**' is no glob of retsnoop: write GLOB, such as vfs_*, or 'GLOB [MODULE]'"),
        (["-e", "nowhere*"], "-e 'nowhere*' matches no function of the world synthetic that retsnoop attaches to"),
        (["-e", "foo12"], "-e 'foo12' matches no function of the world synthetic that retsnoop attaches to"),
        (["-e", "@/nowhere/list"], "/nowhere/list: -e: cannot be read: No such file or directory"),
        (
            ["kretprobe:foo*"],
            "unknown kind 'kretprobe' in 'kretprobe:foo*': write fexit:foo* to plan trampolines instead",
        ),
        (["fentry:*(struct nothing *)"], "no function of the world synthetic takes 'struct nothing *'"),
        (["fentry:*()"], "'()' names no type: write it as in fentry:*(struct sk_buff *)"),
        (["BEGIN { }"], "'BEGIN { }' is no pattern"),
    ],
)
def test_what_is_not_understood_gets_a_sentence(
    capsys: pytest.CaptureFixture[str], words: list[str], mistake: str
) -> None:
    """And exit status 2."""
    assert main(["plan", *words, "--world", "synthetic"]) == 2

    (sentence,) = capsys.readouterr().err.splitlines()
    assert mistake in sentence


def test_bpftrace_programs_may_follow_its_own_option(capsys: pytest.CaptureFixture[str]) -> None:
    """-e is bpftrace's, too."""
    lines = printed(capsys, "-e", "kfunc:foo1 { @ = 1 }", "-e", "foo2", "--world", "synthetic")

    assert ["P1 kfunc:foo1: 1", "P2 -e 'foo2': 1", "P3 -e 'foo2': 1"] == [
        line.partition(" match")[0] for line in lines if " match, attached" in line
    ]
