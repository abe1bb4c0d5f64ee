"""The gallery's record: made by running what it shows."""

from __future__ import annotations

from properties.gallery.bugs import draw_bugs
from properties.gallery.costs import draw_costs
from properties.gallery.defects import draw_defects
from properties.gallery.talk import draw_talk
from properties.report.records import GalleryRecord

__all__ = ["make"]


def make() -> GalleryRecord:
    """Run everything; some seconds."""
    return GalleryRecord(tuple(draw_talk()), tuple(draw_bugs()), tuple(draw_defects()), tuple(draw_costs()))
