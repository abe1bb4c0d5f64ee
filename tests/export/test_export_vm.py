"""Exported programs and selftests on real kernels: they agree, and go red where something else is expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from properties.export.program import program_files
from properties.export.recorded import RecordedSeed, record, setting_of
from properties.export.selftest import selftest_files
from properties.runs.corpus import EVERY, SEEDS
from spec.errors import BadInputError
from spec.seeds import Expectation, parse_seed, read_seed
from tests.support.exporting import HOME, Ended, Exports, recorded, seeds_of
from tests.support.selftests import build_selftest
from tests.support.stations import KERNELS, kernel_or_skip

pytestmark = pytest.mark.vm

CASES = [(kernel, path) for kernel in KERNELS for path in seeds_of(kernel)]


@pytest.fixture(scope="session")
def guests() -> Iterator[dict[str, Exports]]:
    """A guest of each kernel that was asked for so far."""
    running: dict[str, Exports] = {}
    yield running
    for each in running.values():
        each.close()


def guest_of(guests: dict[str, Exports], kernel: str) -> Exports:
    """The guest of a kernel, booted when it is needed first; one runs at a time."""
    if kernel not in guests:
        while guests:
            guests.popitem()[1].close()
        guests[kernel] = Exports(kernel_or_skip(kernel))
    return guests[kernel]


def files_or_skip(recording: RecordedSeed) -> Mapping[str, str]:
    """The program of a seed; the test is skipped, for the reason that is told, where it has none."""
    try:
        return program_files(recording, [])
    except BadInputError as error:
        pytest.skip(str(error).partition(": ")[2])


def run(guests: dict[str, Exports], kernel: str, recording: RecordedSeed) -> Ended:
    files = files_or_skip(recording)
    return guest_of(guests, kernel).run(recording.setting.name, files)


@pytest.mark.parametrize(("kernel", "path"), CASES, ids=[f"{kernel}-{path.stem}" for kernel, path in CASES])
def test_a_kernel_does_as_its_program_expects(guests: dict[str, Exports], kernel: str, path: Path) -> None:
    """Each seed that can be exported, on the kernel whose rules it goes by."""
    recording = recorded(path, kernel)
    if (kernel, path.stem) in SHOWN:
        pytest.skip(f"shows {SHOWN[kernel, path.stem]} on this kernel, and goes red, which another test demands")
    ended = run(guests, kernel, recording)

    assert (ended.status, ended.output.splitlines()[-1]) == (
        0,
        f"{guests[kernel].kernel.release} does as expected in {len(recording.steps)} steps",
    )


SHOWN = {("linux-6.1", "second-try-on-a-live-ops"): "DEFECT-2"}


def altered(path: Path, line: int, expected: Expectation) -> RecordedSeed:
    """A seed of which one line expects something else."""
    seed = read_seed(path)
    steps = tuple(replace(step, expected=expected) if step.line == line else step for step in seed.steps)
    assert steps != seed.steps
    return record(setting_of(path, replace(seed, steps=steps)))


@pytest.mark.parametrize(
    ("line", "words", "expected", "seen"),
    [
        (14, "fentry:p1 fentry:p2 body fexit:p4 fexit:p3 =1", None, "fentry:p2 fentry:p1 body fexit:p4 fexit:p3 =1"),
        (17, "trampoline:fentry:p2", None, "trampoline:fentry:p1,fentry:p2,fexit:p4,fexit:p3"),
    ],
)
def test_other_expectations_are_red(
    guests: dict[str, Exports], line: int, words: str, expected: str | None, seen: str
) -> None:
    """The trace of a call, the target of a site: line, expected and seen are printed, and the status is 1."""
    path = SEEDS / "programs-run-newest-first.seed"
    ended = run(guests, "linux-6.12", altered(path, line, Expectation(words=tuple(words.split()))))

    assert ended.status == 1
    assert f"differs at line {line}:" in ended.output
    assert f"  expected: {expected or words}\n  seen:     {seen}\n" in ended.output


def test_another_outcome_is_red(guests: dict[str, Exports]) -> None:
    """Of an operation, the errno."""
    seed = parse_seed(
        "world synthetic\nsemantics linux-6.12\n---\nftrace_ops o\nftrace_set_filter_ip o foo1 remove -> 0\n"
    )
    recording = record(setting_of(Path("one.seed"), seed))
    ended = run(guests, "linux-6.12", recording)

    assert ended == Ended(
        1,
        "the outcome differs at line 5: ftrace_set_filter_ip o foo1 remove\n  expected: 0\n  seen:     -ENOENT\n",
    )


def test_what_the_sites_show_and_what_programs_saw_is_red(guests: dict[str, Exports]) -> None:
    """Also what a seed does not spell: a program in which a site's letters or an argument are altered."""
    recording = record(setting_of(EVERY / "direct-entries-with-another-address-stay.seed"))
    files = dict(program_files(recording, []))
    name = "direct-entries-with-another-address-stay.c"
    guest = guest_of(guests, "linux-6.12")
    for before, after in (('"foo1 (1) RD', '"foo1 (1) D'), ('"direct:T1 body(1) =1"', '"direct:T1 body(2) =1"')):
        assert before in files[name]
        ended = guest.run(name.removesuffix(".c"), {**files, name: files[name].replace(before, after, 1)})

        assert ended.status == 1, ended.output
        assert after.strip('"') in ended.output


def test_a_kernel_with_a_bug_is_red_by_the_rules_of_a_mended_one(guests: dict[str, Exports]) -> None:
    """6.1 by its own rules where it has DEFECT-2, and by those of 6.12 where a failed registration spoils an ops."""
    shown = run(guests, "linux-6.1", record(setting_of(SEEDS / "second-try-on-a-live-ops.seed")))
    spoiled = SEEDS / "direct-failed-register-leaves-no-entry.seed"
    mended = run(guests, "linux-6.1", record(setting_of(spoiled)))

    assert (shown.status, mended.status) == (1, 1)
    assert "line 17: call foo1 1" in shown.output
    assert "  expected: 0\n  seen:     -EINVAL\n" in mended.output


def test_without_its_modules_a_program_cannot_run(guests: dict[str, Exports]) -> None:
    """One sentence, and the status 4."""
    files = program_files(record(setting_of(SEEDS / "filter-remove-with-reset.seed")), [])
    ended = guest_of(guests, "linux-6.12").run("filter-remove-with-reset", files, modules=False)

    assert ended.status == 4
    assert ended.output == f"This needs to read {HOME}/massattach.ko: No such file or directory.\n"


SELFTESTS = [path for path in seeds_of("linux-6.12") if path.parent == SEEDS]


def test_selftests_pass_and_fail(guests: dict[str, Exports], tmp_path: Path) -> None:
    """Every seed of 6.12's that becomes a selftest passes there; one that expects another order fails."""
    guest, ran = guest_of(guests, "linux-6.12"), 0
    for path in SELFTESTS:
        try:
            files = selftest_files(recorded(path, "linux-6.12"), [])
        except BadInputError:
            continue
        ended = guest.run_file(build_selftest(files, tmp_path / path.stem))
        ran += 1

        assert (ended.status, ended.output) == (0, ""), path
    assert ran >= 4
    files = dict(selftest_files(recorded(SEEDS / "fmod-ret-order.seed", "linux-6.12"), []))
    test = "prog_tests/fmod_ret_order.c"
    files[test] = files[test].replace("NUMBERS(2, 1)", "NUMBERS(1, 2)")
    ended = guest.run_file(build_selftest(files, tmp_path / "red"))

    assert ended.status == 1
    assert "call foo1 1" in ended.output
