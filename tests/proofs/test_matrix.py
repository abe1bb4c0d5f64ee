"""The proof matrix and the checks that `verify` makes of it: all is proved, and a broken generator is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from impl.batched.jit import generate
from impl.batched.jit.isa import Instruction, Isa, Statement
from impl.batched.jit.plan import ImagePlan
from properties.proofs import checks as proof_checks
from properties.proofs import matrix
from properties.proofs.checks import IMAGES, images_are_proved, matrix_is_proved, placed_are_proved
from properties.proofs.matrix import ARITIES, ARM, KINDS, LEVELS, Level, cells, prove_cells
from properties.prover.verdicts import Figures
from properties.prover.verdicts import Verdict as Proved
from properties.report.dividing import run_divided
from properties.report.results import CheckVerdict
from properties.report.show import rich_table, write_reports
from properties.verbs import checks
from properties.work.crew import Crew
from spec.errors import BadInputError

statements = generate.statements


def test_the_matrix_has_every_arity_and_kind() -> None:
    """52 images for one function or several of a shape each; the generic level has one image a kind for all arities."""
    wanted = [(arity, kind) for arity in ARITIES for kind in KINDS]

    assert 52 == len(wanted)
    for level in ("per_function", "per_shape"):
        assert wanted == [(cell.arity, cell.kind) for cell in cells(level)]
        assert {cell.arity for cell in cells(level)} == {len(cell.goal.prototype.slots) for cell in cells(level)}
    assert [tuple(range(7))] * len(KINDS) == [cell.goal.counts for cell in cells("generic")]


@pytest.mark.parametrize("level", LEVELS)
def test_the_matrix_is_proved(level: Level) -> None:
    """Every image at every level, as it is and while detached; those for one arity without a question to z3."""
    found = prove_cells(level, cells(level))

    assert ((), ()) == (found.fallen, found.undecided)
    assert level == "generic" or not any(proof.verdict.figures.asked for proof in found.proofs if not proof.detaching)
    assert found.obligations > 2_000
    assert 2 * len(cells(level)) == len(found.proofs)
    assert {"per_function": 2_791, "per_shape": 2_830, "generic": 240}[level] == found.standing[0]
    # Each arity has six runs of programs, and three images that call the original.
    assert 9 * len(cells(level)) // len(KINDS) == found.standing[1]


def test_arm64_is_proved() -> None:
    """Images for arm64 of each arity that its registers pass are proved."""
    found = prove_cells("arm64", cells("per_function", ARM))

    assert ((), ()) == (found.fallen, found.undecided)
    assert 2 * 9 * len(KINDS) == len(found.proofs)


@pytest.mark.proof
@pytest.mark.parametrize("level", LEVELS)
def test_the_matrix_is_proved_by_z3_alone(level: Level) -> None:
    """With every decision by z3 there are the same decisions, and the same verdicts."""
    plain = prove_cells(level, cells(level))
    solved = prove_cells(level, cells(level), thorough=True)

    assert ((), ()) == (solved.fallen, solved.undecided)
    assert plain.obligations == solved.obligations <= solved.asked


def test_the_table_shows_every_proof() -> None:
    """A row for each arity, in it a verdict and a time for each kind, and for all kinds while detached."""
    page = StringIO()
    Console(file=page, width=100).print(rich_table(prove_cells("per_function", cells("per_function")).table()))
    rows = [line for line in page.getvalue().splitlines() if "proved" in line]

    assert [str(arity) for arity in ARITIES] == [row.split("│")[1].strip() for row in rows]
    assert {len(KINDS) + 1} == {row.count("proved ") for row in rows}


def test_verify_proves_machine_code(tmp_path: Path) -> None:
    """The checks of `verify` hold, for each level, arm64 and real images; their tables are in the report."""
    *quick, placed = checks.proofs()
    with Crew.here(1) as crew:
        done = run_divided(quick, crew, Console(quiet=True))
    write_reports(done, tmp_path / "v.xml", tmp_path / "v.txt")
    text = (tmp_path / "v.txt").read_text()

    assert [CheckVerdict.HOLDS] * (len(LEVELS) + 2) == [finished.result.verdict for finished in done]
    assert len(LEVELS) + 1 == text.count("proofs of generated images")
    assert 1 == text.count("proofs of images of real kernels")
    assert "images in place are proved" == placed.name


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A place to plant a fault in the generator; templates made with it are forgotten."""
    generate.template.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    generate.template.cache_clear()


def forgetful(plan: ImagePlan, isa: Isa) -> list[Statement]:
    """A generator that does not restore its caller's rbx before it leaves."""
    made = statements(plan, isa)
    last = max(place for place, one in enumerate(made) if isinstance(one, Instruction) and "mov rbx, qword" in one.text)
    return [*made[:last], *made[last + 1 :]]


@pytest.mark.parametrize("level", LEVELS)
def test_verify_notices_a_broken_generator(level: Level, planted: pytest.MonkeyPatch) -> None:
    """The check falls, and tells image, obligation, values and the instruction at which it shows."""
    planted.setattr(generate, "statements", forgetful)
    result = matrix_is_proved(level)
    first = result.detail.splitlines()[0]

    assert CheckVerdict.FELL is result.verdict
    assert first == f"fentry, {'0 to 6' if level == 'generic' else 0} arguments: refuted: rbx is restored"
    assert "it is 0x" in result.detail
    assert "<- here" in result.detail
    assert 2 * len(cells(level)) == result.detail.count("refuted: ")
    assert len(cells(level)) == result.detail.count("arguments, while detached: refuted: ")


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """A folder with one seed, by which foo1 and foo2 get images."""
    lines = """
    world synthetic
    semantics linux-7.3
    ---
    bpf_prog_load p1 fentry multi
    bpf_prog_load p2 fexit multi
    bpf_link_create l1 p1 foo1 foo2
    site foo1
    bpf_link_create l2 p2 foo1
    call foo1 1
    bpf_link_detach l1
    """
    (tmp_path / "a.seed").write_text(cleandoc(lines) + "\n")
    return tmp_path


def test_images_in_place_are_proved(seeds: Path) -> None:
    """Each image that there is after a step, once for the first function that has it: four at each level."""
    result = placed_are_proved(seeds)

    assert CheckVerdict.HOLDS is result.verdict
    assert 3 * 4 == result.cases
    assert CheckVerdict.NOT_RUN is placed_are_proved(seeds / "nowhere").verdict


def test_what_a_broken_generator_puts_in_place_falls(seeds: Path, planted: pytest.MonkeyPatch) -> None:
    """The check falls, and names seed, function and obligation."""
    planted.setattr(generate, "statements", forgetful)
    result = placed_are_proved(seeds)

    assert CheckVerdict.FELL is result.verdict
    assert "a: foo1: refuted: rbx is restored" == result.detail.splitlines()[0]


def test_undecided_is_not_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a proof does not decide, the check could not be carried out."""
    undecided = Proved("undecided", {}, Figures(0, 0, 0, 0), {}, reason="the solver gave up")
    monkeypatch.setattr(matrix, "prove", lambda *_, **__: undecided)
    result = matrix_is_proved("generic")

    assert CheckVerdict.NOT_RUN is result.verdict
    assert result.detail.startswith("fentry, 0 to 6 arguments: undecided: the solver gave up\n")


def test_a_real_image_that_is_changed_falls(tmp_path: Path) -> None:
    """A byte of the code is another: the check falls, as it is and while programs are detached."""
    path = next(path for path in sorted(IMAGES.glob("*fexit1.json")))
    fields = json.loads(path.read_text())
    code = bytes.fromhex(fields["image_hex"])
    place = code.index(bytes.fromhex("4889de"))
    fields["image_hex"] = (code[:place] + bytes.fromhex("4831f6") + code[place + 3 :]).hex()
    (tmp_path / path.name).write_text(json.dumps(fields))
    result = images_are_proved(tmp_path)

    assert CheckVerdict.FELL is result.verdict
    assert f"{path.stem}: refuted: fexit 1: exit: what enter returned is passed" == result.detail.splitlines()[0]
    assert 2 == result.detail.count("refuted: ")


def test_no_image_is_not_run(tmp_path: Path) -> None:
    """An empty folder proves nothing, and a file that is no image is named."""
    assert CheckVerdict.NOT_RUN is images_are_proved(tmp_path).verdict
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"a.json"):
        images_are_proved(tmp_path)


def test_the_real_images_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check proves each image of the project as it is, and most also while programs are detached."""
    tried: list[bool] = []
    case = proof_checks._prove_case

    def noted(title: str, kernel: str, detaching: bool, *rest: object) -> object:
        tried.append(detaching)
        return case(title, kernel, detaching, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(proof_checks, "_prove_case", noted)
    result = images_are_proved(IMAGES)
    images: Sequence[Path] = sorted(IMAGES.glob("*.json"))

    assert CheckVerdict.HOLDS is result.verdict
    assert len(images) == tried.count(False) > 90
    assert tried.count(True) > len(images) // 2
    assert len(tried) == result.cases
