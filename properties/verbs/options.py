"""Values of options that several verbs have."""

from __future__ import annotations

import argparse
import math

__all__ = ["SYSTEM_TIME_LIMIT", "seconds"]

SYSTEM_TIME_LIMIT = 10.0
"""Seconds that a plug-in may take for one answer."""


def seconds(text: str) -> float:
    """A time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds: write one above 0")
    return value
