"""A short run on a real kernel as a unit of work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from properties.report.results import CheckResult

__all__ = ["KernelUnit"]


@dataclass(frozen=True, slots=True)
class KernelUnit:
    """Random runs of one of Debian's kernels. directory: where findings are written; random_seed: of the runs.

    It ends after so many operations, or so many seconds of them.
    """

    kernel: str
    directory: str
    random_seed: int
    operations: int
    seconds: float

    def work(self, _: Path) -> CheckResult:
        """Boot the kernel, and take the runs."""
        # What drives a virtual machine is loaded where one is wanted.
        from properties.kernels.checks import Random, debian, take_short  # noqa: PLC0415

        return take_short(
            debian(self.kernel), Random(self.operations, self.seconds, self.random_seed, Path(self.directory))
        )
