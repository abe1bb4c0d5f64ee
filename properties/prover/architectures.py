"""Every architecture that the prover knows, by the name that image files give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from properties.prover.architecture import Architecture
from properties.prover.arm64 import ARM64
from properties.prover.x86_64 import X86_64

__all__ = ["ARCHITECTURES"]

ARCHITECTURES: Final[Mapping[str, Architecture]] = {one.name: one for one in (X86_64, ARM64)}
