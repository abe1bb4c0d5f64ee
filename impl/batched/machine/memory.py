"""Memory that numpy and the emulator share. The system provides a page when it is first touched."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PAGE", "MemoryRegion"]

PAGE: Final = 4096


class MemoryRegion:
    """`size` bytes, whole pages, from `address` on; zero at first. u8, u64: views of the bytes as arrays."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = -(-size // PAGE) * PAGE
        self._pages = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.u8: NDArray[np.uint8] = np.frombuffer(self._pages, np.uint8)
        self.u64: NDArray[np.uint64] = self.u8.view(np.uint64)

    @property
    def pointer(self) -> int:
        """The address of the bytes in this process."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._pages))

    def write(self, address: int, code: bytes) -> None:
        """Bytes to an address."""
        start = address - self.address
        self.u8[start : start + len(code)] = np.frombuffer(code, np.uint8)

    def read(self, address: int, size: int) -> bytes:
        """Bytes from an address."""
        start = address - self.address
        return self.u8[start : start + size].tobytes()
