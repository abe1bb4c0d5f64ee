"""pytest for the project: options, Hypothesis profiles, the marker of a test without one, a watch over `random`."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
import rich.console  # noqa: F401  # draws from `random` when it is first imported, which no test should be blamed for
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase

from properties.hunt.units import import_all
from properties.systems.naming import DEFAULT_SYSTEMS, resolve
from spec.system import SystemFactory

MARKERS = {"slow", "power", "proof", "vm"}

EXAMPLES = "MASSATTACH_EXAMPLES"
"""The variable that names where Hypothesis keeps failing examples, to be shared: a directory, or a Redis server."""


def shared_examples(place: str) -> ExampleDatabase:
    """Hypothesis's database at a directory, or at an address redis://HOST:PORT, for which the extra must be there."""
    if not place.startswith(("redis://", "rediss://")):
        return DirectoryBasedExampleDatabase(place)
    try:
        from hypothesis.extra.redis import RedisExampleDatabase  # noqa: PLC0415 - an extra
        from redis import Redis  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise pytest.UsageError(
            f"{EXAMPLES} names a Redis server, for which a library is missing: pip install 'hypothesis[redis]'"
        ) from error
    return RedisExampleDatabase(Redis.from_url(place))


# No deadline: a loaded machine fails nothing.
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True, database=None)
settings.register_profile(
    "nightly",
    settings.get_profile("dev"),
    max_examples=2000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
if os.environ.get(EXAMPLES):
    for profile in "dev", "nightly":
        settings.register_profile(
            profile, settings.get_profile(profile), database=shared_examples(os.environ[EXAMPLES])
        )
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the project's own tests."""
    group = parser.getgroup("massattach")
    group.addoption(
        "--attack",
        action="store_true",
        help="judge a hundred thousand mutants of images by the prover and by an executor of its own; half an hour",
    )
    group.addoption(
        "--system",
        action="append",
        metavar="S",
        help="check this system against the model, as explore's --system does; may be repeated (default: batched at "
        "each sharing level). The number of examples is the Hypothesis profile's: --hypothesis-profile=nightly",
    )


@pytest.fixture(scope="session")
def factories(request: pytest.FixtureRequest) -> list[SystemFactory]:
    """The systems that lockstep tests run."""
    return [resolve(name) for name in request.config.getoption("--system") or DEFAULT_SYSTEMS]


def pytest_collection_finish() -> None:
    """Import the whole project, so that a test draws the same whichever others are selected."""
    import_all()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test is fast unless it says otherwise; before `-m` selects."""
    for item in items:
        if not MARKERS & {marker.name for marker in item.iter_markers()}:
            item.add_marker("fast")


@pytest.fixture(autouse=True)
def _no_leaking_random() -> Iterator[None]:
    """A test that draws from the global generator, or seeds it, makes others depend on the order of tests."""
    before = random.getstate()
    yield
    leaked = before != random.getstate()
    random.setstate(before)

    assert not leaked, "the test used the global random generator: draw from a strategy, or from random.Random(seed)"
