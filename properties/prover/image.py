"""An image as bytes at an address, and the places of it that the kernel patches: all that a proof has of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from properties.prover.architecture import Architecture

__all__ = ["Image", "Patch"]


@dataclass(frozen=True, slots=True)
class Patch:
    """A place whose nop the kernel may replace by a jump, while tasks are in the image.

    name: the symbol that is 1 where it has, as `steps` names it.
    """

    at: int
    target: int
    name: str


@dataclass(frozen=True, slots=True)
class Image:
    """code: the bytes from address on; the first `used` of them are the image, the rest is what follows it."""

    address: int
    code: bytes
    used: int
    patches: tuple[Patch, ...] = ()

    @property
    def end(self) -> int:
        """The address behind the image."""
        return self.address + self.used

    def holds(self, address: int) -> bool:
        """Whether an address is in the image."""
        return self.address <= address < self.end

    def patched(self, patches: Iterable[Patch], architecture: Architecture) -> Image:
        """The image with jumps in the places of these patches."""
        code = bytearray(self.code)
        for patch in patches:
            jump = architecture.jump(patch.at, patch.target)
            code[patch.at - self.address : patch.at - self.address + len(jump)] = jump
        return replace(self, code=bytes(code))

    def misplaced(self, patches: Iterable[Patch], architecture: Architecture) -> frozenset[int]:
        """The places of these patches that have no nop: the kernel compares what is there, and leaves it alone."""
        size = len(architecture.nop)
        starts = ((patch.at, patch.at - self.address) for patch in patches)
        return frozenset(at for at, start in starts if self.code[start : start + size] != architecture.nop)

    def within(self, patches: Iterable[Patch], architecture: Architecture) -> frozenset[int]:
        """The addresses within the places of these patches, at which no instruction may begin."""
        size = len(architecture.nop)
        return frozenset(at for patch in patches for at in range(patch.at + 1, patch.at + size))
