"""An image as bytes at an address: all that a proof has of it."""

from __future__ import annotations

from dataclasses import dataclass

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
