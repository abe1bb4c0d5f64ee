"""The checks of machine code as units of work. What proves them is loaded where they are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from properties.report.results import CheckResult

__all__ = ["ImagesUnit", "MatrixUnit", "PlacedUnit"]


@dataclass(frozen=True, slots=True)
class MatrixUnit:
    """The images that are generated at a sharing level, for an architecture by its name."""

    level: str
    architecture: str

    def work(self, _: Path) -> CheckResult:
        """Prove them."""
        from properties.proofs import checks, matrix  # noqa: PLC0415

        level = next(each for each in matrix.LEVELS if each == self.level)
        target = next(each for each in (matrix.X86, matrix.ARM) if each.architecture.name == self.architecture)
        return checks.matrix_is_proved(level, target)


@dataclass(frozen=True, slots=True)
class ImagesUnit:
    """The images of real kernels that the project has."""

    def work(self, _: Path) -> CheckResult:
        """Prove them."""
        from properties.proofs import checks  # noqa: PLC0415

        return checks.images_are_proved(checks.IMAGES)


@dataclass(frozen=True, slots=True)
class PlacedUnit:
    """What `batched` puts in place at the steps of the seeds."""

    def work(self, _: Path) -> CheckResult:
        """Prove it."""
        from properties.proofs import checks  # noqa: PLC0415
        from properties.runs.corpus import SEEDS  # noqa: PLC0415

        return checks.placed_are_proved(SEEDS)
