"""A crew that remembers does no unit twice, tries those anew that no worker has ended, and loses nothing it has."""

from __future__ import annotations

import errno
from concurrent.futures import Executor, Future
from pathlib import Path

import msgspec
import pytest

from properties.work.crew import Crew
from properties.work.remembering import TRIES, Remembering
from properties.work.servant import ServantAnswer
from properties.work.units import Done, Lost, UnitReply
from spec.errors import BadInputError
from spec.reading import encode
from tests.support.work_units import Double, Failing


class Unsteady(Executor):
    """Answers with a doubled number, but only every so many times; otherwise its worker has died."""

    def __init__(self, every: int, answer: ServantAnswer | None = None) -> None:
        self.every, self.calls = every, 0
        self.answer = answer or ServantAnswer(UnitReply(0.5, msgspec.Raw(b'{"number": 8, "process": 1}')))

    def submit(self, *_: object) -> Future[bytes]:  # type: ignore[override]
        """Answer at once."""
        self.calls += 1
        future: Future[bytes] = Future()
        if self.calls % self.every:
            future.set_exception(RuntimeError("the worker has died"))
        else:
            future.set_result(encode(self.answer))
        return future


def remembering(executor: Executor, directory: Path) -> Remembering:
    return Remembering(Crew(executor, 1, lambda *_: b"", lambda: None), directory)


def test_what_is_known_is_not_done_again(tmp_path: Path) -> None:
    """The second crew over a directory asks nobody, and the value is the same."""
    first, second = Unsteady(1), Unsteady(1)
    values = [remembering(executor, tmp_path).submit(Double(4)).result() for executor in (first, second)]

    assert (1, 0) == (first.calls, second.calls)
    assert values[0] == values[1]
    assert isinstance(values[0], Done)
    assert (8, 0.5) == (values[0].value.number, values[0].seconds)
    assert 1 == len(list(tmp_path.iterdir()))


def test_a_worker_that_dies_loses_nothing(tmp_path: Path) -> None:
    """A unit is handed out again until somebody has done it; if nobody ever does, it is told."""
    assert isinstance(remembering(Unsteady(5), tmp_path).submit(Double(4)).result(), Done)

    never = Unsteady(TRIES + 1)
    lost = remembering(never, tmp_path).submit(Double(5)).result()

    assert lost == Lost("unreached", "RuntimeError: the worker has died")
    assert TRIES == never.calls


def test_a_lost_unit_is_not_kept(tmp_path: Path) -> None:
    """What ended its process may do so no more: it is done again the next time, once a time."""
    executor = Unsteady(1, ServantAnswer(died="its process ended", journal="seed"))
    for _ in range(2):
        outcome = remembering(executor, tmp_path).submit(Failing("exits")).result()

        assert outcome == Lost("died", "its process ended", "seed")
    assert 2 == executor.calls
    assert [] == list(tmp_path.iterdir())


def test_a_full_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence names the file; what was kept before is there, and nothing half-written."""
    crew = remembering(Unsteady(1), tmp_path)
    crew.submit(Double(1)).result()
    write = Path.write_bytes

    def fill(path: Path, data: bytes) -> int:
        write(path, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    crew.submit(Double(2)).result()
    with pytest.raises(BadInputError, match=r"\.json: cannot be written: No space left on device"):
        crew.submit(Double(3))

    assert [".json"] == [path.suffix for path in tmp_path.iterdir()]


def test_a_damaged_answer_is_told(tmp_path: Path) -> None:
    """A file that is no answer names itself."""
    remembering(Unsteady(1), tmp_path).submit(Double(1)).result()
    (path,) = tmp_path.iterdir()
    path.write_text('{"reply": 3}')
    with pytest.raises(BadInputError, match=f"{path.name}: reply: expected an object or null, not an integer"):
        remembering(Unsteady(1), tmp_path).submit(Double(1))


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    """It is refused at once."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="is no directory for units"):
        remembering(Unsteady(1), tmp_path / "file")
