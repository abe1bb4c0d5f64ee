"""Kernels that are asked to show what they are known to do wrong: that is for a search to find.

One of Debian's is named by its place, and shows DEFECT-17: `explore --system impl.linux.undeclined:linux_6_12
--semantics linux-6.12`. A kernel of one's own gets a file of two lines, and is asked for any of DEFECT-1, -17 and -24
to -30; `explore --system FILE.py:system --semantics linux-7.3` then searches for it:

    from impl.linux.undeclined import own
    system = own("path/to/bzImage", "DEFECT-24")
"""

from __future__ import annotations

from pathlib import Path

from impl import linux
from impl.linux import factory
from spec.system import SystemFactory

__all__ = ["linux_6_1", "linux_6_12", "linux_7_3", "own"]

FREED = ("DEFECT-17",)

linux_6_1 = factory("linux-6.1", asked=FREED)
linux_6_12 = factory("linux-6.12", asked=FREED)
linux_7_3 = factory("linux-7.3", asked=FREED)


def own(bzimage: str, *asked: str) -> SystemFactory:
    """The factory of a developer's own kernel, which is asked to show these defects."""
    return linux.own_factory(linux.own(Path(bzimage), None), asked=asked)
