"""The kernel's ELF file out of a bzImage: QEMU boots it in half the time, through PVH.

The fields of a bzImage's header are those of the kernel's Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib

from impl.linux.host.tools import run
from spec.errors import BadInputError

__all__ = ["extract"]

ELF = b"\x7fELF"
SETUP_SECTORS_AT = 0x1F1
SIGNATURE_AT, SIGNATURE = 0x202, b"HdrS"
PAYLOAD_AT = 0x248
SECTOR = 512
# the build appends the unpacked length to a payload whose format does not end in it
APPENDED_LENGTH = 4


def extract(image: bytes, name: str) -> bytes:
    """The ELF file in a bzImage; an ELF file is its own. `name` is for the error."""
    if image.startswith(ELF):
        return image
    if image[SIGNATURE_AT : SIGNATURE_AT + 4] != SIGNATURE:
        raise BadInputError("neither a bzImage nor an ELF file", name)
    try:
        elf = _unpack(_payload(image), name)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        raise BadInputError("the bzImage's payload is damaged", name) from None
    if not elf.startswith(ELF):
        raise BadInputError("the bzImage's payload is no ELF file", name)
    return elf


def _payload(image: bytes) -> bytes:
    start, length = struct.unpack_from("<II", image, PAYLOAD_AT)
    start += (image[SETUP_SECTORS_AT] + 1) * SECTOR
    return image[start : start + length]


def _unpack_xz(payload: bytes) -> bytes:
    # the stream's end is the decompressor's to find
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
    unpacked = decompressor.decompress(payload)
    if not decompressor.eof:
        raise EOFError
    return unpacked


def _unpack(payload: bytes, name: str) -> bytes:
    if payload.startswith(b"\xfd7zXZ\x00"):
        return _unpack_xz(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return run("zstd", ["-dc"], stdin=payload[:-APPENDED_LENGTH])
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload)
    raise BadInputError(f"the bzImage is packed by none of xz, zstd and gzip (it starts with {payload[:4]!r})", name)
