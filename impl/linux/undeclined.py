"""Kernels that are asked to do what is known to end them while a task stands (DEFECT-17): that is for a search to find.

A system is named by its place: `explore --system impl.linux.undeclined:linux_6_12 --semantics linux-6.12`. Others of
what a kernel is known to do wrong `explore --ask DEFECT` asks it for.
"""

from __future__ import annotations

from impl.linux import factory

__all__ = ["linux_6_1", "linux_6_12", "linux_7_3"]

FREED = ("DEFECT-17",)

linux_6_1 = factory("linux-6.1", asked=FREED)
linux_6_12 = factory("linux-6.12", asked=FREED)
linux_7_3 = factory("linux-7.3", asked=FREED)
