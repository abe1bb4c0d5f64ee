"""The record of the gallery, as the project carries it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from properties.report.records import GalleryRecord
from spec.reading import load

__all__ = ["FILE", "read_gallery"]

FILE: Final = Path(__file__).with_name("gallery.json")
MOST_BYTES: Final = 4 << 20


def read_gallery() -> GalleryRecord:
    """The record as it stands in the file."""
    return load(FILE, GalleryRecord, MOST_BYTES)
