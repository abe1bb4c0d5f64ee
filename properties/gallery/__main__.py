"""Runs everything that the gallery shows, and writes its record anew: `python -m properties.gallery`."""

from __future__ import annotations

from properties.gallery.making import make
from properties.gallery.record import FILE
from properties.report.writing import write_record

if __name__ == "__main__":
    write_record(make(), FILE)
    print(f"written: {FILE.name}")
