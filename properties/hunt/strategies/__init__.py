"""All Hypothesis strategies: operations biased to what exists, preludes, words, worlds, mutated texts, wildcard plans.

No other module draws from strategies of Hypothesis itself.
"""

from properties.hunt.strategies.drawing import argument_words
from properties.hunt.strategies.operations import (
    CONCEPTS,
    INTERLEAVED_CONCEPTS,
    Beginning,
    beginnings,
    drawn_for,
    operations,
)
from properties.hunt.strategies.texts import mutated
from properties.hunt.strategies.wildcards import plans
from properties.hunt.strategies.worlds import presets, prototypes, worlds

__all__ = [
    "CONCEPTS",
    "INTERLEAVED_CONCEPTS",
    "Beginning",
    "argument_words",
    "beginnings",
    "drawn_for",
    "mutated",
    "operations",
    "plans",
    "presets",
    "prototypes",
    "worlds",
]
