"""The verb `mutants`: samples, verdicts, accepted survivors, named bugs, records and bad options."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from impl.linux.architectures import Change
from impl.linux.guest.guest import GuestDiedError
from impl.linux.instruments.mutants import Candidates
from impl.linux.observation import EmulatorLimitError, KernelComplaintError
from impl.planted import SYSTEMS
from properties.__main__ import main
from properties.kernels.evidence import Difference
from properties.lockstep.divergence import Divergence
from properties.mutants import accepted, units
from properties.mutants.accepted import Accepted, AcceptedFile, AcceptingRule
from properties.mutants.judging import kill_of_difference, kill_of_error
from properties.mutants.named import NAMED, MutantPlace, NamedMutant, find_named, named_like
from properties.mutants.records import MutantRecord, exit_status, make_record, mutants_table, summary
from properties.mutants.sampling import eligible, in_function, sample
from properties.mutants.subject import Subject
from properties.mutants.survey import MutantSurvey, ReachedRun
from properties.mutants.units import Judged, MutantUnit
from properties.report.show import text_of
from properties.report.writing import write_lines
from properties.systems.naming import KERNELS
from properties.work.units import request, unit_of, value_of
from spec.errors import BadInputError
from spec.reading import decode, encode, load
from spec.seeds import Seed
from tests.support.made_mutants import BASE, made_mutant

KILLED = Judged("killed", "sites", "synthetic: a", 1, 0, "told")
SURVIVED = Judged("survived", "", "", 2, 30, "")


def record(judged: Judged | str, accepted_as: str = "", number: int = 0) -> MutantRecord:
    place = {"kernel": "linux-6.12", "release": "6.12.1", "name": ""}
    return make_record(made_mutant(number), judged, **place, covering=3, seconds=1.25, accepted=accepted_as)


def difference(aspect: str, expected: str, observed: str) -> Divergence:
    return Divergence(0, 0, "call f", aspect, "linux-6.12", expected, observed, ())


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    """A larger one begins with the smaller one, another seed draws others, and a new candidate moves none."""
    mutants = [made_mutant(number) for number in range(200)]
    drawn = sample(mutants, 20, 1)
    more = sample([*mutants[::-1], made_mutant(999)], 21, 1)

    assert drawn == sample(mutants[::-1], 20, 1)
    assert drawn == sample(mutants, 50, 1)[:20]
    assert set(drawn) & set(sample(mutants, 20, 2)) != set(drawn)
    assert list(drawn) == [each for each in more if each in mutants][:20]
    assert 200 == len(sample(mutants, 500, 1))


def test_mutants_are_of_what_is_executed() -> None:
    """Of a jump that goes one way alone there is one mutant: it goes the other way."""
    jumps = [made_mutant(0, change, ways=(BASE + 8, BASE + 4)) for change in (Change.INVERTED, Change.ALWAYS)]
    elsewhere = made_mutant(1)

    assert (jumps[0],) == eligible([*jumps, elsewhere], frozenset({BASE, BASE + 4}))
    assert tuple(jumps) == eligible([*jumps, elsewhere], frozenset({BASE, BASE + 4, BASE + 8}))


def test_functions_are_chosen_by_globs() -> None:
    """With and without the suffix that the compiler added; none is bad input."""
    mutants = [made_mutant(function="ftrace_update_code.isra.0"), made_mutant(function="register_ftrace_direct")]

    assert (mutants[0],) == in_function(mutants, "ftrace_update_code")
    assert (mutants[0],) == in_function(mutants, "*.isra.0")
    assert (mutants[1],) == in_function(mutants, "*direct*")
    with pytest.raises(BadInputError, match="of a function 'nowhere'"):
        in_function(mutants, "nowhere")


def made_survey(*runs: ReachedRun) -> MutantSurvey:
    """A survey of these runs, in a kernel with some mutants."""
    return MutantSurvey(runs, Candidates(tuple(made_mutant(number) for number in range(9)), 0))


def test_the_runs_of_a_mutant() -> None:
    """After the two shortest those come first that add most for their time; none in which the kernel falls."""
    blocks = [BASE + number for number in range(6)]
    runs = (
        ReachedRun("elsewhere", 0.5, (blocks[2],)),
        ReachedRun("short", 1.0, tuple(blocks[:2])),
        ReachedRun("same", 1.5, tuple(blocks[:2])),
        ReachedRun("falls", 1.5, (blocks[1],), "it fell"),
        ReachedRun("little", 2.0, tuple(blocks[:3])),
        ReachedRun("much", 2.5, tuple(blocks)),
        ReachedRun("long", 9.0, tuple(blocks)),
    )
    survey = made_survey(*runs)

    assert ["short", "same", "much", "little", "long"] == [run.name for run in survey.runs_of(made_mutant(1))]
    assert frozenset(blocks) == survey.executed


@pytest.mark.parametrize(
    ("change", "seen"),
    [(Change.INVERTED, ["there", "behind"]), (Change.NEVER, ["there"]), (Change.ALWAYS, ["behind"])],
)
def test_a_jump_is_judged_by_runs_in_which_it_makes_a_difference(change: Change, seen: list[str]) -> None:
    """One that is never made by those that made it, and one that is always made by those that went on."""
    survey = made_survey(ReachedRun("there", 1.0, (BASE, BASE + 8)), ReachedRun("behind", 2.0, (BASE, BASE + 4)))
    jump = made_mutant(0, change, ways=(BASE + 8, BASE + 4))

    assert seen == [run.name for run in survey.runs_of(jump)]


@pytest.mark.parametrize(
    ("aspect", "expected", "observed", "seen"),
    [
        ("outcome", "0", "-EBUSY", "outcome"),
        ("outcome", "0", "0 WARN\nWARNING: CPU: 0", "warn"),
        ("outcome", "-EBUSY", "-EINVAL WARN", "outcome"),
        ("outcome", "0 WARN", "0", "warn"),
        ("sites", "f direct", "f nop", "sites"),
        ("trace", "entry f", "nothing", "trace"),
        ("images", "1 images alive", "2 images alive", "images"),
        ("undo", "nothing", "f direct", "undo"),
        ("crash", "no crash", "GuestDiedError: no answer within 25 s\nrcu", "hang"),
        ("crash", "no crash", "GuestDiedError: Kernel panic - not syncing: Fatal exception", "crash"),
        ("crash", "no crash", "KernelComplaintError: the kernel complains (taint 128):\nBUG: x", "crash"),
        ("crash", "no crash", "KernelComplaintError: the kernel warned in a call:\nWARNING", "warn"),
        ("crash", "no crash", "KeyError: 'p9'", "unreadable"),
        ("crash", "no crash", "ValueError: invalid literal for int()", "unreadable"),
    ],
)
def test_what_a_difference_is(aspect: str, expected: str, observed: str, seen: str) -> None:
    """A divergence kills by its aspect; a crash is told apart by who raised what."""
    kill = kill_of_difference(difference(aspect, expected, observed))

    assert seen == kill.aspect
    assert observed in kill.told


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (BadInputError("cannot read the line 'f (1)'"), "unreadable"),
        (EmulatorLimitError("the emulator is too slow for this kernel: rcu stall"), "hang"),
        (GuestDiedError("no answer within 25 s", ""), "hang"),
        (GuestDiedError("Kernel panic - not syncing: x", "console"), "crash"),
        (KernelComplaintError("the kernel complains"), "crash"),
        (IndexError("list index out of range"), "unreadable"),
    ],
)
def test_what_an_error_is(error: Exception, seen: str) -> None:
    """What a broken kernel shows that cannot be read is a kill, and never bad input."""
    assert seen == kill_of_error(error).aspect


def test_a_unit_crosses_the_border_of_a_process() -> None:
    """It and what it gives are JSON."""
    unit = MutantUnit(Subject("linux-6.12", "linux-6.12"), ((BASE, "90"),), ("synthetic: a",), 45.0, 30.0, 1)

    assert unit == unit_of(request(unit))
    assert KILLED == value_of(unit, encode(KILLED))


DIFFERENCE = Difference("search", difference("sites", "a", "b"), Seed("w", "s", ()))


@dataclass
class Searched:
    """A search that finds a difference in its first rounds, and a kernel that may show it without the mutation."""

    mine: int
    rounds: int = 0
    collected: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(differences=[], left=[]))
    evidence: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(steps=10))

    def begin(self, *_: object) -> Searched:
        """Of a kernel, its rules and a world."""
        self.collected.differences = []
        return self

    def random(self, *_: object, **__: object) -> None:
        """Finds one."""
        self.rounds += 1
        self.collected.differences = [DIFFERENCE]

    def fixed(self, _: object, **__: object) -> None:
        """Meets it again, as long as it is the kernel's own."""
        self.collected.differences = [] if self.rounds >= self.mine else [DIFFERENCE]


def test_what_the_kernel_itself_does_is_no_kill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A search of a mutant goes on behind a difference that the unchanged kernel shows, too."""
    searched = Searched(mine=3)
    monkeypatch.setattr(units, "Conforming", searched.begin)
    subject = Mock(changed=lambda *_: nullcontext())

    judged = MutantUnit(subject, (), (), 0.0, 60.0, 7).work(tmp_path)

    assert ("killed", 30, 3) == (judged.verdict, judged.steps, searched.rounds)


def test_accepted_survivors_are_known_again() -> None:
    """By function, code and change, or by a rule; the kernel's suffixes do not matter."""
    one = made_mutant(function="ftrace_check_record.isra.0", code="0123456789ab")
    lock = made_mutant(5, target="mutex_lock")
    file = AcceptedFile(
        (AcceptingRule((Change.CALL,), "concurrency only", "a second task", target="mutex_(un)?lock"),),
        (Accepted("ftrace_check_record", "0123456789ab", Change.CALL, "equivalent", "the same"),),
    )

    assert "equivalent" == file.reason_for(one)
    assert "equivalent" == file.reason_for(replace(one, function="ftrace_check_record", address=1, at=2))
    assert "" == file.reason_for(replace(one, code="ffffffffffff"))
    assert "" == file.reason_for(replace(one, change=Change.STORE))
    assert "concurrency only" == file.reason_for(lock)
    assert "" == file.reason_for(replace(lock, target="mutex_lock_nested"))


def test_a_rule_speaks_of_what_is_called_nearby() -> None:
    """In the mutant's block, or in the one behind it; and of each of its changes."""
    jump = made_mutant(0, Change.NEVER, text="jne 0x10", near=(("a",), ("b",), ("__mutex_init", "c")))
    both = (Change.NEVER, Change.INVERTED)

    def reason(**places: str) -> str:
        return AcceptedFile((AcceptingRule(both, "equivalent", "the same", **places),), ()).reason_for(jump)

    assert "equivalent" == reason(here="a", behind="__mutex_.*") == reason(function="function0")
    assert ["", "", ""] == [reason(here="b"), reason(behind="b"), reason(text="je .*")]


def test_a_rule_speaks_of_the_instructions_before() -> None:
    """As of a jump behind the counter that allows preemption."""
    jump = made_mutant(0, Change.NEVER, text="je 0x10", before=("mov eax, 1", "dec dword ptr gs:[rip + 8]"))
    why = "equivalent", "the same"

    def reason(before: str) -> str:
        return AcceptedFile((AcceptingRule((Change.NEVER,), *why, before=before),), ()).reason_for(jump)

    assert ["equivalent", "equivalent", ""] == [reason(".*; dec .*"), reason(".*rip.*"), reason("dec .*")]


def test_the_file_of_accepted_survivors() -> None:
    """It is read by its types, no survivor stands in it twice, each tells why, and a rule says of what it speaks."""
    file = load(accepted.FILE, AcceptedFile, 1 << 20)
    keys = [(each.function, each.code, each.change) for each in file.mutants]

    assert len(set(keys)) == len(keys)
    assert all(each.why for each in (*file.mutants, *file.rules))
    assert all(rule.target or rule.text or rule.function != "*" for rule in file.rules)
    assert keys == sorted(keys)


def test_a_bug_is_found_by_what_stands_around_it() -> None:
    """By function, change, callee, instruction and what is called nearby; of several places one counts."""
    jump = made_mutant(0, Change.INVERTED, text="je 0x10", target="", near=(("a",), ("kfree",), ("WARN",)))
    calls = [made_mutant(number, function="f.part.0") for number in (9, 4)]
    mutants = [jump, *calls]

    def find(*places: MutantPlace) -> object:
        return find_named(NamedMutant("n", "c", "s", "", KERNELS, places), mutants)

    assert jump == find(MutantPlace("function0", Change.INVERTED, text="je .*", here="a", there="kf.*", behind="WARN"))
    assert None is find(MutantPlace("function0", Change.INVERTED, there="a"))
    assert None is find(MutantPlace("function0", Change.ALWAYS))
    assert calls[1] == find(MutantPlace("f", Change.CALL, target="kfree"))
    assert calls[0] == find(MutantPlace("g", Change.CALL), MutantPlace("f", Change.CALL, target="kfree", which=1))
    assert None is find(MutantPlace("f", Change.CALL, which=2))


def test_the_named_bugs() -> None:
    """Each has a name of its own, the commit that mended it, and a planted bug that exists, if it has one."""
    assert len({bug.name for bug in NAMED}) == len(NAMED)
    assert all(12 <= len(bug.commit) <= 13 and int(bug.commit, 16) for bug in NAMED if bug.commit)
    assert all(bug.planted in SYSTEMS for bug in NAMED if bug.planted)
    assert all(bug.subject and bug.places and set(bug.kernels) <= set(KERNELS) for bug in NAMED)
    assert NAMED == named_like("*")
    with pytest.raises(BadInputError, match="no bug is named 'nobody': write one of "):
        named_like("nobody")


@pytest.mark.parametrize(
    ("records", "status", "sentence"),
    [
        ([], 2, "0 mutants: 0 killed; 0 survived; 0 accepted"),
        ([record(KILLED)], 0, "1 mutants: 1 killed, 100.0 % of 1 that can be seen; 0 survived; 0 accepted"),
        ([record(SURVIVED, "equivalent")], 0, "1 mutants: 0 killed; 0 survived; 1 accepted"),
        (
            [record(KILLED), record(SURVIVED)],
            1,
            "2 mutants: 1 killed, 50.0 % of 2 that can be seen; 1 survived; 0 accepted",
        ),
        ([record("it died")], 2, "1 mutants: 0 killed; 0 survived; 0 accepted; 1 lost"),
        (
            [record("it died"), record(SURVIVED)],
            1,
            "2 mutants: 0 killed, 0.0 % of 1 that can be seen; 1 survived; 0 accepted; 1 lost",
        ),
        (
            [record(KILLED, "equivalent")],
            0,
            "1 mutants: 1 killed, 100.0 % of 1 that can be seen; 0 survived; 0 accepted",
        ),
    ],
)
def test_the_exit_status(records: list[MutantRecord], status: int, sentence: str) -> None:
    """0 if every survivor is accepted, 1 if one is not, 2 if nothing is known of one."""
    assert (status, sentence) == (exit_status(records), summary(records))


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    """One for each mutant, whole, with the members of the record."""
    path = tmp_path / "mutants.jsonl"
    records = [record(KILLED), record(SURVIVED, "equivalent", 1), record("its process died", "", 2)]
    write_lines(records, path)
    lines = path.read_bytes().splitlines()

    assert records == [decode(line, MutantRecord) for line in lines]
    assert {field.name for field in fields(MutantRecord)} == json.loads(lines[0]).keys()
    assert ["killed", "survived", "lost"] == [each.verdict for each in records]
    assert [path] == list(tmp_path.iterdir())


def test_a_mutant_is_told_in_a_line() -> None:
    """What was changed, and what killed it, or why it may live."""
    place = "function0+0x0, call left out: call 0x10 (kfree)"

    assert f"killed by sites in 1.2 s, synthetic: a: {place}" == str(record(KILLED))
    assert f"survived 2 of 3 runs and 30 random steps in 1.2 s, not accepted: {place}" == str(record(SURVIVED))
    assert str(record(SURVIVED, "equivalent")).endswith(f"accepted, equivalent: {place}")
    assert f"lost, it died: {place}" == str(record("it died\nmore"))
    assert f"lost, it died: a-bug: {place}" == str(replace(record("it died"), name="a-bug"))


def test_the_table_counts_by_file_and_change() -> None:
    """And all of them in its last line."""
    grid = mutants_table("linux-6.12", [record(KILLED), record(SURVIVED), record(SURVIVED, "equivalent")])
    counted = {line.cells[0]: line.cells[1:] for line in grid.lines}

    assert ["kernel/bpf/trampoline.c", "call left out", "all"] == list(counted)
    assert {("3", "1", "1", "1", "1.2", "sites 1")} == set(counted.values())
    assert "mutants of its machine code" in text_of(grid, 120)


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ("", "one kernel is mutated: write --kernel linux-7.3, another one, or --bzimage FILE"),
        ("--kernel linux-6.1 --kernel linux-6.12", "one kernel is mutated"),
        ("--kernel linux-5.4", "invalid choice: 'linux-5.4'"),
        ("--system batched", "'batched' is no kernel: write one of linux-6.1, linux-6.12, linux-7.3, or bzimage:FILE"),
        ("--kernel linux-6.1 --semantics linux-6.1", "--semantics is for a kernel of your own"),
        ("--kernel linux-6.1 --sample 0", "'0' is no number of mutants: write one above 0"),
        ("--kernel linux-6.1 --budget -1", "'-1' is no number of seconds"),
        ("--kernel linux-6.1 --named x --function f", "--named and --function both say which mutants are made"),
        ("--kernel linux-6.1 --named nobody", "no bug is named 'nobody': write one of "),
        ("--bzimage nowhere/bzImage --semantics linux-7.3", "the kernel cannot be read: No such file or directory"),
    ],
)
def test_bad_options(words: str, mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Options that do not fit are told, and the status is 2."""
    try:
        status = main(["mutants", *words.split()])
    except SystemExit as ending:
        status = ending.code
    printed = capsys.readouterr()

    assert (2, "") == (status, printed.out)
    assert mistake in printed.err
