"""The proof matrix: generated images of every arity and every kind of program, each proved.

It is made at each sharing level, and of each architecture that the generator and the prover know. Each image is proved
as it is, and while a task is in it and programs are being detached.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from impl.batched.jit import arm64, x86_64
from impl.batched.jit.isa import Isa
from properties.proofs.generated import generated, while_detaching
from properties.prover.architecture import Architecture
from properties.prover.arm64 import ARM64
from properties.prover.goal import Goal, Kind, Program
from properties.prover.image import Image
from properties.prover.proving import prove
from properties.prover.show import counterexample_lines, summary
from properties.prover.verdicts import Outcome, Verdict
from properties.prover.x86_64 import X86_64
from properties.report.grid import Column, Grid, Line
from properties.report.results import ProofCell
from spec.prototypes import Prototype, Type

__all__ = [
    "ARITIES",
    "ARM",
    "KINDS",
    "LEVELS",
    "X86",
    "Cell",
    "Level",
    "Matrix",
    "Proof",
    "Target",
    "cells",
    "long",
    "prove_cells",
]

Level = Literal["per_function", "per_shape", "generic"]
LEVELS: Final[tuple[Level, ...]] = ("per_function", "per_shape", "generic")
ARITIES: Final = range(13)
"""All that an image may have: MAX_BPF_FUNC_ARGS is 12."""

DETACHED: Final = "while detached"
"""The column of all kinds while programs are detached."""

WORST: Final[tuple[Outcome, ...]] = ("refuted", "undecided", "proved")

KINDS: Final[Mapping[str, tuple[Kind, ...]]] = {
    "fentry": ("fentry",),
    "fexit": ("fexit",),
    "fmod_ret": ("fmod_ret",),
    "all three": ("fentry", "fmod_ret", "fexit"),
}


@dataclass(frozen=True)
class Target:
    """What images are generated and proved for. arities: of functions whose arguments are long."""

    isa: Isa
    architecture: Architecture
    arities: Sequence[int]


X86: Final = Target(x86_64.X86_64, X86_64, ARITIES)
ARM: Final = Target(arm64.ARM64, ARM64, range(len(ARM64.convention.arguments) + 1))
"""Stack arguments are not generated for arm64."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of the matrix, and what is to be proved of it. kind: a key of KINDS."""

    arity: int
    kind: str
    image: Image
    goal: Goal
    architecture: Architecture

    @property
    def served(self) -> str:
        """The arities of its functions."""
        return f"0 to {self.arity}" if self.goal.lookup is not None else str(self.arity)


@dataclass(frozen=True, slots=True)
class Proof:
    """A cell and its verdict. seconds: of the processor that the proof took. detaching: while programs are detached."""

    cell: Cell
    verdict: Verdict
    seconds: float
    detaching: bool = False

    def __str__(self) -> str:
        cell, when = self.cell, f", {DETACHED}" if self.detaching else ""
        return f"{cell.kind}, {cell.served} arguments{when}: {summary(self.verdict)}"

    @property
    def lines(self) -> list[str]:
        """The verdict, and the counterexample where there is one."""
        found, cell = self.verdict.counterexample, self.cell
        shown = counterexample_lines(found, cell.image, cell.goal, cell.architecture) if found is not None else ()
        return [str(self), *(f"  {line}" for line in shown)]


@dataclass(frozen=True)
class Matrix:
    """What came of some cells, each proved as it is and while detached. name: which they are, for its table."""

    name: str
    proofs: tuple[Proof, ...]

    @cached_property
    def fallen(self) -> tuple[Proof, ...]:
        """Those that are refuted."""
        return tuple(proof for proof in self.proofs if proof.verdict.outcome == "refuted")

    @cached_property
    def undecided(self) -> tuple[Proof, ...]:
        """Those that are neither proved nor refuted."""
        return tuple(proof for proof in self.proofs if proof.verdict.outcome == "undecided")

    @property
    def obligations(self) -> int:
        """How many decisions there were, of all obligations, on all paths."""
        return sum(sum(proof.verdict.obligations.values()) for proof in self.proofs)

    @property
    def asked(self) -> int:
        """How many questions z3 was asked."""
        return sum(proof.verdict.figures.asked for proof in self.proofs)

    @property
    def seconds(self) -> float:
        """The time of all proofs."""
        return sum(proof.seconds for proof in self.proofs)

    @property
    def standing(self) -> tuple[int, int]:
        """At how many instructions a task was thought to stand, and how many jumps were thought to be put in."""
        figures = [proof.verdict.figures for proof in self.proofs if proof.detaching]
        return sum(one.stands for one in figures), sum(one.places for one in figures)

    def told(self, level: Level) -> tuple[ProofCell, ...]:
        """The cells of the report's matrix."""
        return tuple(
            ProofCell(found[0].cell.architecture.name, level, served, column, *_sum_up(found))
            for served, columns in self._rows.items()
            for column, found in columns.items()
        )

    def table(self) -> Grid:
        """Arity by kind, and all kinds while detached: the worst verdict, and the milliseconds of the proofs."""
        names = (*KINDS, DETACHED)
        columns = (Column("arguments", right=True), *(Column(name, right=True, wrap="never") for name in names))
        lines = (
            Line((served, *(_tell(found[name]) if name in found else "" for name in names)))
            for served, found in self._rows.items()
        )
        return Grid(f"proofs of generated images, {self.name}", columns, tuple(lines))

    @cached_property
    def _rows(self) -> Mapping[str, Mapping[str, Sequence[Proof]]]:
        """The proofs by arity and column."""
        rows: dict[str, dict[str, list[Proof]]] = {}
        for proof in sorted(self.proofs, key=lambda proof: (proof.cell.arity, proof.detaching)):
            column = DETACHED if proof.detaching else proof.cell.kind
            rows.setdefault(proof.cell.served, {}).setdefault(column, []).append(proof)
        return rows


def _sum_up(proofs: Sequence[Proof]) -> tuple[Outcome, float]:
    """The worst verdict, and the milliseconds."""
    outcomes = {proof.verdict.outcome for proof in proofs}
    worst = next(outcome for outcome in WORST if outcome in outcomes)
    return worst, 1000 * sum(proof.seconds for proof in proofs)


def _tell(proofs: Sequence[Proof]) -> str:
    outcome, milliseconds = _sum_up(proofs)
    return f"{outcome} {milliseconds:.1f} ms"


def long(arity: int) -> Prototype:
    """A function of so many long arguments, that returns one."""
    word = Type("long", "INT", 8)
    return Prototype((word,) * arity, word)


def cells(level: Level, target: Target = X86) -> tuple[Cell, ...]:
    """The images of a level. The generic one has one image a kind, for every arity that registers can pass."""
    arities: Sequence[int] = (len(target.architecture.convention.arguments),) if level == "generic" else target.arities
    return tuple(_cell(arity, kind, level, target) for arity in arities for kind in KINDS)


def _cell(arity: int, kind: str, level: Level, target: Target) -> Cell:
    image, goal = generated(
        long(arity),
        [Program(each, 0) for each in KINDS[kind]],
        shared=level == "per_shape",
        generic=level == "generic",
        isa=target.isa,
        architecture=target.architecture,
    )
    return Cell(arity, kind, image, goal, target.architecture)


def prove_cells(name: str, wanted: Iterable[Cell], *, thorough: bool = False) -> Matrix:
    """Proves each cell, as it is and while detached. thorough: z3 decides every obligation."""
    both = ((cell, detaching) for cell in wanted for detaching in (False, True))
    return Matrix(name, tuple(_proof(cell, thorough=thorough, detaching=detaching) for cell, detaching in both))


def _proof(cell: Cell, *, thorough: bool, detaching: bool) -> Proof:
    start = time.process_time()
    goal = while_detaching(cell.goal) if detaching else cell.goal
    verdict = prove(cell.image, goal, thorough=thorough, architecture=cell.architecture)
    return Proof(cell, verdict, time.process_time() - start, detaching)
