"""Judges: images are judged in other processes, and one that cannot be judged does not stop the others."""

from __future__ import annotations

import os
import time
from contextlib import closing

from properties.proofs.judges import Judges
from properties.proofs.judging import Judgement, Words


def judging(text: str, file: str) -> Judgement:
    """What stands for a prover: the text tells what it does."""
    if text == "dies":
        os._exit(1)
    if text == "sleeps":
        time.sleep(1000)
    if text == "fails":
        raise ValueError("two\nlines")
    return Judgement(file, text, "proved", "", detaching=False, words=Words("proved"), seconds=0.0)


def test_one_that_cannot_be_judged() -> None:
    """Where a process dies, or the prover raises, that image is undecided, and the others are proved."""
    names = ["f", "dies", "g", "fails", "h", "dies", "i"]
    with closing(Judges(judging)) as judges:
        found = [judged.result() for judged in [judges.submit(name, f"{name}.json") for name in names]]

    told = {one.file: one.told for one in found if one.outcome == "undecided"}
    assert ["f.json", "g.json", "h.json", "i.json"] == [one.file for one in found if one.outcome == "proved"]
    assert {
        "dies.json": "undecided: the prover's process died",
        "fails.json": "undecided: the prover failed: ValueError: two lines",
    } == told
    assert {"undecided"} == {one.words.outcome for one in found if one.outcome == "undecided"}


def test_one_that_takes_too_long() -> None:
    """After its time an image is undecided."""
    with closing(Judges(judging, seconds=0.25)) as judges:
        found = judges.submit("sleeps", "x.json").result()

    assert ("undecided", "undecided: the prover has not ended after 0.25 s") == (found.outcome, found.told)


def test_the_end_waits_for_nothing() -> None:
    """Judges that are closed judge nothing more: all of it is undecided."""
    judges = Judges(judging)
    judged = [judges.submit("sleeps", f"{number}.json") for number in range(8)]
    judges.close()

    assert {"undecided"} == {one.result().outcome for one in judged}
