"""Explore finds what is planted, shrinks it to its minimal steps, and writes a seed that fails again."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from properties.__main__ import main
from properties.hunt.exploring import Explored
from properties.hunt.findings import Found, save, save_seed
from properties.hunt.search import search
from properties.hunt.shrink import Trial, shrink
from properties.lockstep.coverage import Tally
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.verbs import explore
from spec.operations import Operation
from spec.outcomes import Outcome
from spec.seeds import Seed, parse_operation, parse_seed, print_operation, read_seed
from spec.semantics import PRESETS
from spec.worlds import synthetic
from tests.support import lockstep_fakes as fakes

SEMANTICS = PRESETS["linux-7.3"]


def found_by(factory: object, random_seed: int = 1) -> Found:
    found = search(synthetic(), SEMANTICS, [factory], 60.0, random_seed)

    assert found is not None

    return found


def lines(found: Found) -> list[str]:
    return [print_operation(step.operation) for step in found.seed.steps]


@pytest.mark.parametrize(
    ("factory", "aspect", "expected"),
    [
        (fakes.WrongOutcome, "outcome", ["ftrace_ops o1", "register_ftrace_function o1"]),
        (fakes.WrongTrace, "trace", None),
        (fakes.WrongCost, "cost", None),
        (fakes.LeaksImages, "images", None),
        (fakes.Raises, "crash", ["bpf_link_detach l1"]),
    ],
)
def test_planted_flaws_are_found_and_shrunk(factory: object, aspect: str, expected: list[str] | None) -> None:
    """Each planted flaw is found, in its aspect, and what is left of the steps is minimal."""
    found = found_by(factory)

    assert aspect == found.divergence.aspect
    assert expected is None or expected == lines(found)
    assert len(found.seed.steps) <= 6
    assert found.examples > 0
    assert found.steps_to_find >= found.original >= len(found.seed.steps) - 1


class Interrupted(fakes.Honest):
    """Is interrupted in the middle of its first operation, and is of no use afterwards."""

    used = False

    def apply(self, _operation: Operation) -> Outcome:
        """One that does not come to its end."""
        if self.used:
            raise ConnectionError
        self.used = True
        raise KeyboardInterrupt


def test_ctrl_c_is_no_finding() -> None:
    """A system that was interrupted is not asked to undo what it was doing."""
    with pytest.raises(KeyboardInterrupt):
        search(synthetic(), SEMANTICS, [Interrupted], 60.0, 1)


def test_an_honest_system_has_no_finding() -> None:
    """The budget ends without one."""
    assert search(synthetic(), SEMANTICS, [fakes.Honest], 1.0, 1) is None


def test_a_search_can_be_repeated() -> None:
    """The same random seed finds the same, after as many steps."""
    first, second = found_by(fakes.IgnoresReset, 5), found_by(fakes.IgnoresReset, 5)

    assert (first.seed, first.steps_to_find, first.examples) == (second.seed, second.steps_to_find, second.examples)


def test_shrinking_keeps_the_aspect_and_drops_the_rest() -> None:
    """From a long sequence with one planted flaw only what is needed stays, in the simplest words."""
    text = (
        "ftrace_ops o3 save_regs; ftrace_set_filter_ips o3 foo7 bar2 narrow; bpf_prog_load p4 fexit func_ip; "
        "bpf_raw_tracepoint_open l3 p4 foo6 cookie=7; register_ftrace_function o3; call foo6 1 2 3 4 5 6; "
        "bpf_prog_load p5 fentry sleepable; unregister_ftrace_function o3; bpf_link_detach l3"
    )
    steps = tuple(map(parse_operation, text.split("; ")))
    run = Lockstep(synthetic(), SEMANTICS, [fakes.LeaksImages])
    trial = Trial(synthetic(), SEMANTICS, (fakes.LeaksImages,), "images", lambda: False)
    divergence = run.run(parse_seed(f"world w\nsemantics linux-7.3\n---\n{text.replace('; ', chr(10))}").steps)[0]
    shrunk, last = shrink(trial, steps, divergence)

    assert "images" == last.aspect
    assert [
        "bpf_prog_load p1 fentry",
        "bpf_raw_tracepoint_open l1 p1 foo1",
        "bpf_link_detach l1",
    ] == list(map(print_operation, shrunk))


def test_shrinking_ends_when_its_time_is_up() -> None:
    """Without time the sequence stays as it is."""
    steps = (parse_operation("ftrace_ops o3"), parse_operation("register_ftrace_function o3"))
    divergence = Divergence(1, 0, "", "outcome", "honest", "", "", ())
    trial = Trial(synthetic(), SEMANTICS, (fakes.WrongOutcome,), "outcome", lambda: True)

    assert (steps, divergence) == shrink(trial, steps, divergence)


def test_what_cannot_be_undone_is_a_seed_that_fails_by_itself() -> None:
    """The undo operations and the sites that must be nops are written down."""
    found = search(synthetic(), SEMANTICS, [], 60.0, 1, model=fakes.Forgetful)

    assert found is not None
    assert "undo" == found.divergence.aspect
    assert ["ftrace_ops o1", "register_ftrace_function o1", "unregister_ftrace_function o1"] == lines(found)[:3]
    assert "nop" == str(found.seed.steps[-1].expected)
    assert Lockstep(synthetic(), SEMANTICS, [], model=fakes.Forgetful).run(found.seed.steps)


def test_a_saved_seed_tells_what_it_is(tmp_path: Path) -> None:
    """Its name and comments tell semantics, aspect, both sides, rules and how it was found; it is the same seed."""
    found = found_by(fakes.WrongOutcome)
    path = save(found, tmp_path / "seeds")
    text = path.read_text(encoding="utf-8")

    assert path.name.startswith("linux-7.3-outcome-")
    assert [path] == list(path.parent.iterdir())
    assert found.seed.steps == tuple(type(step)(step.operation, step.expected) for step in read_seed(path).steps)
    for part in ("the model says: 0", "honest says: -ENOMEM", "OPS-6", "random seed 1", "before shrinking"):
        assert part in text


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    explore.add_arguments(parser)
    return parser.parse_args(words)


def test_the_verb_finds_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding is printed with its seed's place, the journal is gone, and the status is 1."""
    plug_in = f"{Path(__file__).parents[1] / 'support' / 'lockstep_fakes.py'}:IgnoresReset"
    words = ("--system", plug_in, "--semantics", "linux-6.12", "--budget", "60", "--save", str(tmp_path))
    status = explore.run(arguments(*words))
    printed = capsys.readouterr().out
    (path,) = tmp_path.iterdir()

    assert 1 == status
    assert f"written to {path}" in printed
    assert "reset" in path.read_text(encoding="utf-8")


def test_the_verb_prints_the_tally(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a finding the operations, their outcomes and what was not reached are printed, and the status is 0."""
    words = ("--system", "model", "--budget", "3", "--random-seed", "7", "--save", str(tmp_path))
    status = explore.run(arguments(*words))
    printed = capsys.readouterr().out

    assert 0 == status
    assert [] == list(tmp_path.iterdir())
    for part in ("random seed 7", "rules not reached", "bpf_prog_load", *PRESETS):
        assert part in printed
    assert re.search(r"^no divergence in [1-9]\d+ operations of [1-9]\d* examples$", printed, re.MULTILINE)


def test_a_search_that_does_nothing_proves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where starting a kernel takes all of the budget, nothing is said of it."""
    monkeypatch.setattr(explore, "explore", lambda *_: Explored({"linux-7.3": Tally(SEMANTICS)}))
    status = main(["explore", "--semantics", "linux-7.3", "--budget", "3", "--save", str(tmp_path)])

    assert 2 == status
    assert "no operation was executed within 3 s: give more with --budget SECONDS\n" == capsys.readouterr().err


def test_a_population_is_named_relative_to_the_seed(tmp_path: Path) -> None:
    """A seed that was found in a population file names the file as its reader finds it."""
    population = tmp_path / "small.json"
    population.write_text(json.dumps({}), encoding="utf-8")
    worlds = [
        read_seed(save_seed(Seed(world, "linux-7.3", ()), "sites", (), tmp_path / "seeds")).world
        for world in (str(population), "synthetic")
    ]

    assert ["../small.json", "synthetic"] == worlds


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf", "soon"])
def test_a_budget_is_a_number_of_seconds(budget: str) -> None:
    """Anything else is refused by the command line."""
    with pytest.raises(SystemExit):
        arguments("--budget", budget)


def test_only_what_kernels_decline_by_name_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Another defect is bad input."""
    with pytest.raises(SystemExit):
        main(["explore", "--ask", "DEFECT-2"])

    assert "invalid choice: 'DEFECT-2' (choose from 'DEFECT-1', 'DEFECT-17', 'DEFECT-24'" in capsys.readouterr().err


def test_a_directory_that_is_a_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one sentence, with exit code 2, before anything is searched."""
    (tmp_path / "file").touch()

    assert 2 == main(["explore", "--budget", "3", "--save", str(tmp_path / "file")])
    assert f"{tmp_path / 'file'}: is no directory, and cannot be made: File exists\n" == capsys.readouterr().err
