"""Crews of dask.distributed: a cluster that is there already, by its scheduler's address, or one of this machine.

A worker of the cluster keeps a servant for each of its threads, so that a unit that ends its process ends no worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from distributed import Client, LocalCluster, Security

from properties.work.crew import Crew, Hands
from properties.work.units import fingerprint
from spec.errors import BadInputError

__all__ = ["Tls", "join", "start"]

CONNECT_SECONDS: Final = 15
WAIT_SECONDS: Final = 30
_HANDS: Final = Hands()


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a cluster that speaks TLS, as dask's Security takes them."""

    ca: Path
    cert: Path
    key: Path


def perform(asked: bytes, limit: float) -> bytes:
    """On a worker: have a request done by a servant of its thread; the answer, as JSON."""
    return _HANDS.perform(asked, limit)


def join(address: str, tls: Tls | None, tell: Callable[[str], None]) -> Crew:
    """A crew of the workers of a cluster. tell: is given a sentence for each worker that cannot be used.

    BadInputError if there is no scheduler at the address, or no worker of this version of the project.
    """
    secure = (
        Security(
            require_encryption=True, tls_ca_file=str(tls.ca), tls_client_cert=str(tls.cert), tls_client_key=str(tls.key)
        )
        if tls
        else None
    )
    _be_quiet()
    try:
        client = Client(address, timeout=CONNECT_SECONDS, security=secure, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInputError(f"no scheduler answers: {reason}; start one with `dask scheduler`", address) from error
    return _crew_of(client, tell, client.close)


def start(jobs: int, tell: Callable[[str], None]) -> Crew:
    """A cluster of this machine, of as many workers, and its crew. tell: is given where to look at it."""
    _be_quiet()
    cluster = LocalCluster(
        n_workers=jobs, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
    )
    tell(f"dashboard: {cluster.dashboard_link}")
    client = Client(cluster, set_as_default=False)

    def end() -> None:
        client.close()
        cluster.close()

    return _crew_of(client, tell, end)


def _crew_of(client: Client, tell: Callable[[str], None], end: Callable[[], None]) -> Crew:
    with suppress(TimeoutError):
        client.wait_for_workers(1, WAIT_SECONDS)
    workers = _list_workers(client, tell)
    if not workers:
        end()
        raise BadInputError("the cluster has no worker with this version of massattach: start one with `dask worker`")
    width = sum(client.scheduler_info(n_workers=-1)["workers"][worker]["nthreads"] for worker in workers)
    executor = client.get_executor(pure=False)

    def shut_down() -> None:
        executor.shutdown(wait=False)
        end()

    return Crew(executor, width, perform, shut_down)


def _list_workers(client: Client, tell: Callable[[str], None]) -> list[str]:
    """Lists the workers that have this version of the project."""
    found = client.run(fingerprint, on_error="return")
    for worker, answer in found.items():
        if answer != fingerprint():
            tell(f"{worker} has another version of massattach, or none: install the same there")
    return [worker for worker, answer in found.items() if answer == fingerprint()]


def _be_quiet() -> None:
    """Dask tells of each connection that breaks; what that means for units is told by the crew."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
