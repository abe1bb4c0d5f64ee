"""One guest for each kernel, which all tests of a session share: each test begins at its snapshot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from impl.linux.station import Station, prepare
from tests.support.stations import KERNELS, kernel_or_skip, world


@pytest.fixture(scope="session", params=KERNELS)
def shared_station(request: pytest.FixtureRequest) -> Iterator[Station]:
    """The station of a kernel, in whatever state the last test has left it."""
    station = prepare(kernel_or_skip(request.param), world())
    yield station
    station.guest.close()


@pytest.fixture
def station(shared_station: Station) -> Station:
    """The station of a kernel, as it was at first."""
    shared_station.fresh()
    return shared_station
