"""The verbs, their exit statuses, and the framework of checks, tables and reports behind `verify`."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from properties import __main__ as front_door
from properties.report.dividing import Divided
from properties.report.results import Check, CheckResult, CheckVerdict, Finished, exit_status, summary
from properties.report.running import run_checks
from properties.report.show import write_reports
from properties.runs.units import seeds_agree
from properties.systems.naming import DEFAULT_SYSTEMS
from properties.verbs import SUMMARIES, checks, module_name, verify
from spec.errors import BadInputError
from spec.semantics import PRESETS
from tests.support.work_units import Double

ROOT = Path(__file__).parents[2]


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m properties` in the checkout's root."""
    command = [sys.executable, "-m", "properties", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_every_verb_with_its_summary() -> None:
    """Help names each verb, which is a module of properties.verbs, with its summary."""
    done = python("--help")

    assert 0 == done.returncode
    for verb, sentence in SUMMARIES.items():
        assert re.search(f"^  {verb} +{re.escape(sentence)}$", done.stdout, re.MULTILINE)
        assert callable(importlib.import_module(module_name(verb)).run)


@pytest.mark.parametrize("verb", SUMMARIES)
def test_each_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`VERB --help` prints its usage and exits with 0."""
    with pytest.raises(SystemExit) as ending:
        front_door.main([verb, "--help"])

    assert 0 == ending.value.code
    assert f"usage: python -m properties {verb}" in capsys.readouterr().out


def test_help_imports_no_heavy_library() -> None:
    """Help comes at once: neither numpy nor Hypothesis nor rich is imported for it."""
    code = "import sys, properties.__main__ as m; m.main(['-h']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert not {"numpy", "hypothesis", "rich"} & set(done.stdout.split())


def test_no_verb_and_an_unknown_verb_are_bad_input() -> None:
    """Both exit with 2 and tell the verbs, on stderr alone."""
    for words in ((), ("verfiy",)):
        done = python(*words)

        assert (2, "") == (done.returncode, done.stdout)
        assert "verify" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_unknown_option_is_bad_input() -> None:
    """Errors that argparse finds exit with 2."""
    done = python("verify", "--no-such-option")

    assert 2 == done.returncode
    assert "--no-such-option" in done.stderr


def test_an_unknown_world_is_bad_input() -> None:
    """A world that does not exist is one sentence on stderr and exit status 2."""
    done = python("verify", "--world", "linux-9.9")

    assert (2, "") == (done.returncode, done.stdout)
    assert 1 == len(done.stderr.splitlines())
    assert "unknown world 'linux-9.9': write one of synthetic" in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (BadInputError("a mistake", "f.seed", 3), 2, "f.seed:3: a mistake\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_endings(
    error: BaseException,
    status: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bad input exits with 2 and Ctrl-C with 130, each with one line."""

    def run(_: argparse.Namespace) -> int:
        raise error

    verb = SimpleNamespace(add_arguments=lambda _: None, run=run)
    monkeypatch.setattr(importlib, "import_module", lambda _: verb)

    assert status == front_door.main(["verify"])
    assert ("", text) == capsys.readouterr()


def test_a_reader_that_leaves_is_no_crash() -> None:
    """`... | head` ends without a word, and as the shell has it of what SIGPIPE ended."""
    command = f"{sys.executable} -m properties plan 'fentry:foo*' --world synthetic | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ("141\n", "") == (done.stdout, done.stderr)


def holds() -> CheckResult:
    return CheckResult(CheckVerdict.HOLDS, 1000, "examples", {"synthetic": 30, "linux-6.1": 1000}, 5000, 70)


def fell() -> CheckResult:
    return CheckResult(
        CheckVerdict.FELL, 3, "seeds", {"synthetic": 30}, 5, 1, "a.seed: batched diverges\n  \x1b[31m<&>"
    )


def bad_input() -> CheckResult:
    raise BadInputError("there is no QEMU")


def defect() -> CheckResult:
    raise ZeroDivisionError("by zero")


def finished(*checks: Check, console: Console | None = None) -> list[Finished]:
    return run_checks(checks, console or Console(file=StringIO()))


def test_every_check_runs_and_each_line_is_told_in_a_log() -> None:
    """A check that falls or breaks does not keep the others from running; a log has one line per check."""
    log = StringIO()
    checks = [Check("one", fell), Check("two", defect), Check("three", bad_input), Check("four", holds)]
    done = finished(*checks, console=Console(file=log, width=40))

    assert ["one", "two", "three", "four"] == [entry.name for entry in done]
    assert [CheckVerdict.FELL, CheckVerdict.NOT_RUN, CheckVerdict.NOT_RUN, CheckVerdict.HOLDS] == [
        entry.result.verdict for entry in done
    ]
    lines = log.getvalue().splitlines()
    assert 4 == len(lines)
    assert lines[0].startswith("one: fell: a.seed: batched diverges (3 seeds, ")
    assert lines[1].startswith("two: not run: ZeroDivisionError: by zero (")
    assert lines[2].startswith("three: not run: there is no QEMU (")
    assert lines[3].startswith("four: holds (1,000 examples, ")


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ([holds], 0),
        ([holds, fell], 1),
        ([holds, bad_input], 2),
        ([defect], 2),
        ([bad_input, fell], 1),
        ([], 2),
    ],
)
def test_the_exit_status(checks: list[Callable[[], CheckResult]], status: int) -> None:
    """0 all hold, 1 a property fell, 2 a check could not run or there was none: what did not run never holds."""
    done = finished(*(Check(str(number), check) for number, check in enumerate(checks)))

    assert status == exit_status(done)


def test_the_summary_counts_each_world_once() -> None:
    """Functions are counted by world, steps and calls are added up."""
    assert "Checked 1,030 functions in 2 worlds by 10,000 steps and 140 calls: all 2 properties hold." == summary(
        finished(Check("a", holds), Check("b", holds))
    )
    assert summary(finished(Check("a", holds), Check("b", fell), Check("c", defect))).endswith(
        "1 of 3 properties fell, and 1 of 3 could not be checked.",
    )
    assert summary([]).endswith("there was no property to check.")


def test_reports_are_written_whole(tmp_path: Path) -> None:
    """JUnit XML is well-formed whatever the detail holds, and the text report has table, summary and details."""
    done = finished(Check("a", holds), Check("b", fell), Check("c", bad_input))
    write_reports(done, tmp_path / "deep" / "verify.xml", tmp_path / "verify.txt")
    suite = ET.parse(tmp_path / "deep" / "verify.xml").getroot()[0]
    text = (tmp_path / "verify.txt").read_text()

    assert ("3", "1", "1") == (suite.get("tests"), suite.get("failures"), suite.get("errors"))
    assert [None, "a.seed: batched diverges", "there is no QEMU"] == [
        case[0].get("message") if len(case) else None for case in suite
    ]
    assert [[], ["failure"], ["error"]] == [[entry.tag for entry in case] for case in suite]
    assert summary(done) in text
    assert "1,000 examples" in text
    assert "\n  \x1b[31m<&>" in text


def test_a_terminal_shows_only_what_does_not_hold() -> None:
    """On a terminal, progress replaces the lines of checks that hold."""
    screen = StringIO()
    finished(Check("good", holds), Check("bad", fell), console=Console(file=screen, force_terminal=True, width=200))

    assert "good: holds" not in screen.getvalue()
    assert "bad: fell" in screen.getvalue()


def namespace(**values: object) -> argparse.Namespace:
    return argparse.Namespace(**values)


def test_verify_prints_one_table_and_the_summary(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a log: a line for each check, the table, the summary, where the reports are; 1 if a property fell."""
    monkeypatch.setattr(checks, "proofs", list)
    monkeypatch.setattr(
        checks, "checks", lambda worlds, budget: [Divided(f"{len(worlds)}, {budget:g}", [Double(1)], lambda _: fell())]
    )
    junit = tmp_path / "out" / "v.xml"
    status = verify.run(namespace(world=["synthetic"], budget=3.0, junit=junit, jobs=1, scheduler=None, crew=None))
    lines = capsys.readouterr().out.splitlines()

    assert 1 == status
    assert lines[0].startswith("1, 3: fell: a.seed: batched diverges (3 seeds, ")
    assert "massattach verify" == lines[1].strip()
    assert "Checked 30 functions in 1 worlds by 5 steps and 1 calls: 1 of 1 properties fell." == lines[-3]
    assert f"Reports: {junit.with_suffix('.txt')} and {junit}" == lines[-2]
    assert f"For a browser: {junit.parent / 'report.html'}" == lines[-1]
    assert junit.is_file()


def test_verify_without_time_is_bad_input() -> None:
    """A budget of 0 is refused with what to write."""
    with pytest.raises(BadInputError, match="--budget 0 is no time: write a number of seconds above 0"):
        verify.run(namespace(world=None, budget=0.0, junit=Path("v.xml")))


def test_the_checks_cover_every_setting() -> None:
    """The small world is checked under all semantics, a real one under its own and the newest."""
    names = [check.name for check in checks.checks(["synthetic", "linux-6.1"], 10)]

    assert "seeds agree" == names[0]
    for name in PRESETS:
        assert f"random sequences agree: synthetic, {name}" in names
        assert f"every answer and rule is reached: {name}" in names
    assert [
        "overlapping wildcards agree: linux-6.1, linux-6.1",
        "overlapping wildcards agree: linux-6.1, linux-7.3",
    ] == names[-2:]


def test_a_seed_that_diverges_makes_the_property_fall(tmp_path: Path) -> None:
    """A seed whose expectation the model does not meet is told by name, line and both sides."""
    seed = "world synthetic\nsemantics linux-6.1\n---\nftrace_ops o1 -> {}\ncall foo2 1 2\n"
    (tmp_path / "good.seed").write_text(seed.format("0"))
    good = seeds_agree(tmp_path, DEFAULT_SYSTEMS)
    (tmp_path / "bad.seed").write_text(seed.format("-EBUSY"))
    bad = seeds_agree(tmp_path, DEFAULT_SYSTEMS)

    assert (CheckVerdict.HOLDS, 1, 2, 1) == (good.verdict, good.cases, good.steps, good.calls)
    assert CheckVerdict.FELL is bad.verdict
    assert bad.detail.startswith("bad.seed: model diverges in expectation at line 4: ftrace_ops o1\n")


def test_no_seed_is_not_run(tmp_path: Path) -> None:
    """An empty folder of seeds proves nothing."""
    assert CheckVerdict.NOT_RUN is seeds_agree(tmp_path, DEFAULT_SYSTEMS).verdict


@pytest.mark.slow
def test_verify_on_the_small_world() -> None:
    """The main job runs on the synthetic world, and every property holds."""
    done = python("verify", "--world", "synthetic", "--budget", "8")

    assert 0 == done.returncode, done.stdout
    assert done.stdout.count(": holds (") == 1 + 2 * len(PRESETS) + len(checks.proofs())
