"""The gallery: its record is what running it gives, and each planted bug in it replays to a divergence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from impl.planted import PLANTED, Planted
from properties.gallery.bugs import draw_bugs
from properties.gallery.costs import SIZES, draw_costs
from properties.gallery.defects import draw_defects
from properties.gallery.record import read_gallery
from properties.gallery.talk import draw_talk
from properties.lockstep.lockstep import Lockstep
from properties.report.records import Curve, CurveRecord
from properties.systems.naming import semantics_named, world_named
from spec.documents import defects, rules
from spec.seeds import parse_seed

RENEW = "python -m properties.gallery writes the record anew"


def test_the_record_is_what_running_gives() -> None:
    """Talk, planted bugs and defects."""
    gallery = read_gallery()

    assert gallery.talk == tuple(draw_talk()), RENEW
    assert gallery.planted == tuple(draw_bugs()), RENEW
    assert gallery.defects == tuple(draw_defects()), RENEW


def cut(record: CurveRecord, size: int) -> CurveRecord:
    curves = (Curve(curve.name, tuple(point for point in curve.points if point[0] <= size)) for curve in record.curves)
    return CurveRecord(record.semantics, record.title, record.unit, tuple(curves))


def test_the_smaller_costs_are_what_running_gives() -> None:
    """By the rules of every kernel."""
    small = tuple(size for size in SIZES if size <= 1000)

    assert tuple(cut(record, 1000) for record in read_gallery().costs) == tuple(draw_costs(small)), RENEW


@pytest.mark.slow
def test_all_costs_are_what_running_gives() -> None:
    """To the number of functions of a kernel."""
    assert read_gallery().costs == tuple(draw_costs()), RENEW


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_a_bug_of_the_record_diverges(bug: Planted) -> None:
    """Its seed, replayed, diverges at its last step, as the record tells, and its rule is one of spec/README.md."""
    shown = next(each for each in read_gallery().planted if each.name == bug.name)
    seed = parse_seed(shown.difference.seed)
    lockstep = Lockstep(world_named(seed.world), semantics_named(seed.semantics), [bug])
    (found,) = lockstep.run(seed.steps)
    lockstep.close()

    assert len(seed.steps) - 1 == found.index
    assert shown.difference.rules == tuple(sorted(found.rules))
    assert shown.difference == replace(found.told(seed), rules=shown.difference.rules)
    assert shown.rule in {rule.id for rule in rules()}


def test_images_split_and_merge_back() -> None:
    """The talk's three trampolines become six where links overlap, and are the same three again."""
    first, second, third = (frame.picture for frame in read_gallery().talk)

    assert first == third
    assert (3, 6, 3) == (first.alive, second.alive, third.alive)
    assert [("fentry:P1", "fexit:P2"), ("fentry:P3",), ("fentry:P5", "fentry:P4", "fexit:P6")] == [
        callee.programs for callee in first.callees
    ]
    assert ["TRAMPOLINE1", "TRAMPOLINE2", "TRAMPOLINE3"] == [callee.name for callee in first.callees]
    assert {callee.programs for callee in first.callees} < {callee.programs for callee in second.callees}


def test_sharing_is_seen_in_the_pictures() -> None:
    """An image that serves two shapes is one box with the bug, and two in the model."""
    shown = next(each for each in read_gallery().planted if each.name == "shapes-share-an-image")

    assert (2, 1) == (len(shown.expected.callees), len(shown.observed.callees))
    assert (2, 1) == (shown.expected.alive, shown.observed.alive)


def test_the_documents_are_read_whole() -> None:
    """Every defect and rule is there, those with a seed in the gallery, too."""
    found = defects()

    assert [f"DEFECT-{number}" for number in range(1, len(found) + 1)] == [defect.id for defect in found]
    assert 16 <= len(found)
    assert [defect.id for defect in found if defect.seed] == [defect.id for defect in read_gallery().defects]
    assert not any("Seed:" in defect.text for defect in found)
    assert all(rule.heading and rule.text and rule.source for rule in rules())
