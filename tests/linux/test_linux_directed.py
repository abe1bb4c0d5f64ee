"""Directed runs of kernels: none that is written is left out."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from properties.kernels import directed, directed_links, directed_tasks
from properties.kernels.directed import linux_directed
from spec.laboratory import LABORATORIES, laboratory
from spec.semantics import PRESETS


@pytest.mark.parametrize("module", [directed, directed_links, directed_tasks], ids=lambda module: module.__name__)
def test_every_directed_run_is_made_of_some_kernel(module: ModuleType) -> None:
    """A function that takes semantics alone and yields lines is a run of one of the kernels."""
    names = {run.name for name in LABORATORIES for run in linux_directed(PRESETS[semantics_of(name)], laboratory(name))}
    written = {
        name.lstrip("_")
        for name, made in inspect.getmembers(module, inspect.isgeneratorfunction)
        if [each.annotation for each in inspect.signature(made).parameters.values()] == ["Semantics"]
    }

    assert written
    assert set() == written - names


def semantics_of(name: str) -> str:
    """The semantics of the kernel that a laboratory is of."""
    return name.replace("laboratory", "linux")
