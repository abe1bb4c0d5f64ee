"""The verb `sweep`: rows, places, verdicts, records, and that what is wrong is seen."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from impl.batched.system import Batched
from impl.linux.architectures.x86_64 import X86_64
from impl.linux.probes.disassembly import Helpers
from impl.linux.probes.stands import image_stands
from properties.__main__ import main
from properties.parking.places import ParkingPlace
from properties.parking.records import exit_status, make_checks, make_records, summary, sweep_table
from properties.parking.scenarios import IMAGES, SweptRow, rows, rows_of
from properties.parking.units import RowUnit, Stay, Swept
from properties.report.results import CheckVerdict
from properties.report.show import text_of
from properties.report.writing import write_lines
from properties.systems.naming import KERNELS
from properties.work.units import request, unit_of, value_of
from spec.errors import BadInputError
from spec.images import read_image_file
from spec.operations import BpfRawTracepointOpen, Operation, Step
from spec.reading import encode
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.standing import END, make_stands

IMAGE_FILES = Path(__file__).parents[1] / "support" / "images"
ROW = SweptRow(IMAGES[0], "detach the last", (), ("bpf_link_detach l1",))
PLACE = ParkingPlace("push rbp", "image", offset=0)
AGREES = Stay(PLACE, ("pending", "0"), "fentry:p1 body =1")
KNOWN = Stay(PLACE, declined="frees it (DEFECT-17)", defect="DEFECT-17")
UNREACHED = Stay(PLACE, reached=False)
DIFFERS = Stay(PLACE, ("0",), "", "trace", "says otherwise", "a seed")


def sweep(image: str, operation: str, semantics: str) -> Swept:
    """A row of the emulated machine."""
    (row,) = rows_of(rows(PRESETS[semantics]), image, operation)
    return RowUnit("batched", semantics, row).work(Path())


def test_an_instruction_counts_as_the_next_point() -> None:
    """Of a session the second time, too; and what is behind the last span as that."""
    instructions = [(0, "push"), (1, "mov"), (4, "call"), (9, "mov"), (12, "call"), (17, "ret")]
    spans = [(0, "image"), (4, "before:p1"), (9, "program:p1"), (12, "before:p1"), (END, "exit")]
    stands = make_stands(instructions, spans)

    nearest = ["image", "before:p1", "before:p1", "program:p1", "before:p1", "exit"]
    assert nearest == [stand.points[0][0] for stand in stands]
    assert [1, 1, 1, 1, 2, 1] == [stand.points[0][1] for stand in stands]


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_image_of_a_kernel_counts_as_its_points(kernel: str) -> None:
    """Its calls and nops are the last instructions that count as a point, in the order of TASK-2."""
    file = read_image_file(IMAGE_FILES / f"{kernel}.bpf_fentry_test6.fentry1_fexit2.json")
    known = Helpers(*(frozenset(call.target for call in file.calls if name in (call.sym or "")) for name in HELPERS))
    names = {program.symbol_address: f"p{number}" for number, program in enumerate(file.programs, 1)}
    stands = image_stands(X86_64, file.image_address, file.image_hex, known, names.get)
    seen = list(dict.fromkeys(stand.points[0][0] for stand in stands))

    assert ["image", "enter"] == seen[:2]
    assert "exit" == seen[-1]
    assert seen.index("program:p1") < seen.index("body") < seen.index("after-body") < seen.index("program:p2")
    assert file.image_hex[stands[-1].offset] in {0xC3, 0xE9}


HELPERS = ("__bpf_prog_enter", "__bpf_prog_exit", "__bpf_tramp_enter", "__bpf_tramp_exit")


@pytest.mark.parametrize("name", KERNELS)
def test_rows_are_of_the_alphabet(name: str) -> None:
    """Each image, with what can be done to it: it goes whole, it grows, and what it has goes."""
    every = rows(PRESETS[name])
    operations = {row.operation for row in every if row.image.name == "two fexit"}

    assert {"attach fentry", "attach fexit", "detach the oldest", "detach the newest", "detach all"} <= operations
    assert PRESETS[name].fsession == any(row.image.name == "fsession" for row in every)
    assert PRESETS[name].tracing_multi == any(row.operation == "attach many" for row in every)
    for row in every:
        attached = [parse_operation(line) for line in row.image.lines]
        assert any(
            isinstance(operation, BpfRawTracepointOpen) or operation.verb == "bpf_link_create" for operation in attached
        )


def test_a_row_that_is_not_there_is_bad_input() -> None:
    """The sentence names those that are."""
    with pytest.raises(BadInputError, match="no row is of 'fentry' and 'jump': images are fentry, fexit"):
        rows_of(rows(PRESETS["linux-7.3"]), "fentry", "jump")


def test_the_emulated_machine_does_as_the_model_says() -> None:
    """By 6.12's rules the last detach waits for a task at any instruction, but not for one asleep in the body."""
    swept = sweep("fexit", "detach the last", "linux-6.12")
    answers = {stay.place.text: stay.answers for stay in swept.parked}

    assert ("", "") == (swept.without, swept.left)
    assert set() == {stay.aspect for stay in swept.parked} - {""}
    assert ("0",) == answers.pop("asleep in the body")
    assert {("pending", "0")} == set(answers.values())
    assert {"body fexit:p1 =1", "body =1"} == {stay.trace for stay in swept.parked}


def test_what_the_call_does_not_come_to_is_told() -> None:
    """Where fmod_ret answers, the instructions that call the body are passed over."""
    swept = sweep("fmod_ret that answers", "an ops comes", "linux-7.3")

    assert {stay.place.text.split()[0] for stay in swept.parked if not stay.reached} >= {"call"}
    assert 30 < sum(stay.reached for stay in swept.parked)


def test_a_machine_that_puts_images_without_a_jump_is_seen() -> None:
    """TASK-5: at each place before ip_after_call, and nowhere else; the places behind it go on in a new run."""
    with patch("impl.batched.tasks.skip_fexit"):
        swept = sweep("two fexit", "detach the newest", "linux-6.12")
    fell = [stay for stay in swept.parked if stay.aspect]
    last = max(stay.place.offset or 0 for stay in fell)

    assert {"trace"} == {stay.aspect for stay in fell}
    assert {"before:p2", "program:p2", "before:p1", "exit"} <= {
        stay.place.point for stay in swept.parked if not stay.aspect
    }
    assert all(stay.aspect for stay in swept.parked if stay.place.offset is not None and stay.place.offset <= last)
    assert "bpf_link_detach l2" in fell[0].seed


def test_an_operation_that_is_refused_beside_a_task_is_told() -> None:
    """With the rule."""
    assert "livepatch foo1: -EOPNOTSUPP (NAME-14)" == sweep("fentry", "livepatch", "linux-7.3").without


def test_a_place_to_which_no_task_is_led_is_told() -> None:
    """With the system's reason; the row goes on in a new run."""

    def declines(_system: Batched, operation: Operation) -> str:
        return "leads none there" if isinstance(operation, Step) and operation.to == "program:p1" else ""

    with patch.object(Batched, "declines", declines):
        swept = sweep("fentry", "an ops comes", "linux-6.12")
    declined = [stay for stay in swept.parked if stay.declined]

    assert {"program:p1"} == {stay.place.point for stay in declined}
    assert declined[0].declined.startswith("step t1 to=program:p1: ")
    assert 10 < sum(stay.reached and not stay.declined and not stay.aspect for stay in swept.parked)


@pytest.mark.parametrize(
    ("outcome", "verdicts", "status"),
    [
        (Swept((AGREES, UNREACHED)), ["agrees", "unreached"], 0),
        (Swept((AGREES, KNOWN)), ["agrees", "known"], 0),
        (Swept((AGREES, DIFFERS)), ["agrees", "difference"], 1),
        (Swept((AGREES,), left="a site is left"), ["agrees", "difference"], 1),
        (Swept((UNREACHED,)), ["unreached"], 2),
        (Swept((), "-EINVAL"), ["without"], 2),
        ("its process died", ["lost"], 2),
    ],
)
def test_a_verdict_follows_from_what_was_seen(outcome: Swept | str, verdicts: list[str], status: int) -> None:
    """A row in which no task stood anywhere proves nothing."""
    found = tuple(make_records("batched", "", ROW, outcome, 2.0))

    assert verdicts == [record.verdict for record in found]
    assert status == exit_status(found)


def test_records_are_lines_of_json_and_a_table(tmp_path: Path) -> None:
    """And checks for the report, one for each image."""
    found = tuple(make_records("linux-6.12", "6.12.117", ROW, Swept((AGREES, KNOWN, DIFFERS)), 2.0))
    write_lines(found, tmp_path / "made" / "sweep.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "made" / "sweep.jsonl").read_text().splitlines()]
    (check,) = make_checks("linux-6.12", found)

    assert ["agrees", "known", "difference"] == [line["verdict"] for line in lines]
    assert "DEFECT-17: +0x0; trace: +0x0" in text_of(sweep_table("linux-6.12", found), width=200)
    assert summary(found).startswith(
        "3 places in 1 images and 1 rows: 1 as the model says, 1 operations pended; 1 known"
    )
    assert (CheckVerdict.FELL, 2) == (check.result.verdict, check.result.cases)
    assert "says otherwise" in check.result.detail


def test_a_row_crosses_to_another_process_and_back() -> None:
    """As JSON."""
    unit, value = RowUnit("linux-7.3", "linux-7.3", ROW), Swept((AGREES, DIFFERS), "", "a leak", 3)

    assert unit == unit_of(request(unit))
    assert value == value_of(unit, encode(value))


@pytest.mark.slow
def test_the_verb_writes_records_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is printed, and stands in the report."""
    options = ["--semantics", "linux-7.3", "--image", "fentry", "--operation", "an ops comes", "--jobs", "1"]
    status = main(["sweep", "--system", "batched", *options, "--json", str(tmp_path / "linux.jsonl")])
    printed = capsys.readouterr().out

    assert 0 == status
    assert "as the model says, 0 operations pended; 0 known, 0 differences" in printed
    assert "a task at each instruction: fentry" in (tmp_path / "report.html").read_text()
    assert {"fentry"} == {json.loads(line)["image"] for line in (tmp_path / "linux.jsonl").read_text().splitlines()}
    assert "sweep-linux.json" in {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "one system is swept: write --bzimage FILE, --kernel linux-7.3, or --system batched"),
        (["--system", "model"], "'model' cannot be swept: write one of linux-6.1, linux-6.12, linux-7.3"),
        (["--kernel", "linux-7.3", "--semantics", "linux-6.12"], "--semantics is for batched and a kernel of your own"),
        (["--system", "batched", "--save", __file__], f"{__file__}: is no directory, and cannot be made"),
        (["--system", "batched", "--json", "sweep.json"], "sweep.json: is where the record for the report goes"),
        (["--system", "batched", "--image", "none"], "no row is of 'none' and '*': images are fentry"),
    ],
)
def test_bad_options_are_told(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one sentence, with exit code 2."""
    assert 2 == main(["sweep", *options])
    assert told in capsys.readouterr().err
