"""The verb `population` on kernels: of files of one's own, and --host, which is run in a guest."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest

from impl.linux.guest.batch import Batch
from impl.linux.guest.guest import boot
from impl.linux.probes.population import survey
from properties.__main__ import main
from spec import populations
from tests.support.guest_python import ENCODINGS, files_for
from tests.support.stations import kernel_or_skip

pytestmark = pytest.mark.vm

MEMORY, PATIENCE = 2048, 1500.0
OUTPUT, POPULATION = "/population.out", "/population.json"
VERB = ("properties.__main__", "properties.verbs.population", *ENCODINGS)


def test_the_host_is_read_as_a_guest_is() -> None:
    """`population --host` in 6.1, which has no addresses, writes what is read of it from outside, kcore and all."""
    kernel = kernel_or_skip("linux-6.1")
    with closing(boot(kernel, memory=MEMORY, extra_files=files_for(*VERB))) as guest:
        batch = Batch()
        ran = batch.spawn(sys.executable, ["-m", "properties", "population", "--host", POPULATION], OUTPUT)
        batch.read_file(OUTPUT)
        status, told = (guest.submit(batch, PATIENCE)[entry] for entry in (ran, ran + 1))
        assert (0, "") == (status.value, "" if status.value == 0 else told.data[0].decode())
        written = json.loads(guest.read(POPULATION)[0])
        expected = survey(guest, kernel.architecture)

    assert expected.population == written
    assert told.data[0].decode().splitlines()[:-1] == list(expected.complaints)
    assert f"Linux {kernel.release}, {len(written['functions']):,} functions" in told.data[0].decode()


def test_files_of_ones_own_are_booted_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--bzimage with --modules and --load: the kernel's functions, and those of the module that was loaded."""
    kernel = kernel_or_skip("linux-7.3")
    file = tmp_path / "mine.json.gz"
    words = ["--bzimage", str(kernel.vmlinux), "--modules", str(kernel.modules), "--load", "virtio_net", str(file)]
    assert main(["population", *words]) == 0

    built_in, mine = populations.load("linux-7.3"), populations.read_population(file)
    assert {f.name for f in built_in.functions if not f.module} == {f.name for f in mine.functions if not f.module}
    assert {"virtio_net", "net_failover", "failover"} <= set(mine.modules)
    assert f"Linux {kernel.release}," in capsys.readouterr().out
