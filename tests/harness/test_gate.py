"""The CI: workflows that their services accept, what they call, and the comparison of two runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from properties.kernels.evidence import Evidence
from properties.kernels.tables import as_json
from spec.semantics import PRESETS

ROOT = Path(__file__).parents[2]
CHANGES = ROOT / "docs" / "ci" / "changes.py"
WORKFLOWS = {
    ".github/workflows/ci.yml": "github-workflows",
    "docs/ci/github.yml": "github-workflows",
    "docs/ci/gitlab-ci.yml": "gitlab-ci",
}
GATES = ("docs/ci/github.yml", "docs/ci/gitlab-ci.yml")


def validate(path: Path, schema: str) -> subprocess.CompletedProcess[str]:
    """Checks a file against a schema that check-jsonschema carries with it; nothing is fetched."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("file", "schema"), WORKFLOWS.items())
def test_a_workflow_has_the_form_of_its_service(file: str, schema: str) -> None:
    """Each file is valid by the schema of GitHub or GitLab."""
    done = validate(ROOT / file, schema)

    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize(("file", "schema"), WORKFLOWS.items())
def test_a_misspelled_workflow_is_refused(file: str, schema: str, tmp_path: Path) -> None:
    """The schema is one that tells mistakes."""
    path = tmp_path / "workflow.yml"
    text = (ROOT / file).read_text()
    path.write_text(re.sub(r"^( +)(steps|script):", r"\1stages-of-it:", text, flags=re.MULTILINE))

    assert 1 == validate(path, schema).returncode


def test_every_workflow_is_checked() -> None:
    """No YAML file of the repository is left out above."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.yml", "*.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert set(WORKFLOWS) == set(listed.stdout.split())


@pytest.mark.parametrize("file", GATES)
def test_a_gate_finds_what_it_takes_from_massattach(file: str) -> None:
    """Files of massattach that a gate uses are there, and it installs what README says."""
    text = (ROOT / file).read_text()
    taken = set(re.findall(r"\.massattach/(\S+)", text))
    needed = re.search(r"^apt-get install (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert needed

    assert {"docs/ci/changes.py"} == taken
    assert all((ROOT / name).is_file() for name in taken)
    assert set(needed[1].split()) <= set(text.split())


def test_our_own_workflow_calls_tox_alone() -> None:
    """What it runs are environments of tox.ini, or .ci/run."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (matrix,) = re.findall(r"environment: \[(.*)\]", text)
    environments = (ROOT / "tox.ini").read_text()

    assert {"./.ci/run", "./tox -e verify", "./tox -e ${{ matrix.environment }}"} == set(
        re.findall(r"- run: (.*)", text)
    )
    assert all(re.search(rf"[{{,:]{name}[,}}\]]", environments) for name in matrix.split(", "))


def linux_json(confirmed: str, **outcomes: int) -> dict[str, object]:
    """What `linux` writes after a run that confirmed one rule, and in which livepatch gave these answers."""
    answers = {("livepatch", outcome.replace("_", "-")): count for outcome, count in outcomes.items()}
    evidence = Evidence("bzImage", "7.3.4", PRESETS["linux-7.3"], {confirmed: 2}, answers, {}, (), (), 1, 1, 1.0)
    return as_json([evidence])


@pytest.mark.parametrize(
    ("last", "this", "told"),
    [
        (linux_json("SITE-3"), linux_json("SITE-3"), ["nothing changed since the last run"]),
        (
            linux_json("SITE-3", OK=4),
            linux_json("SITE-4", OK=1, _EBUSY=2),
            [
                "bzImage: SITE-3 was confirmed, and is never reached",
                "bzImage: SITE-4 was never reached, and is confirmed",
                "bzImage: livepatch -> -EBUSY is new",
            ],
        ),
        (linux_json("SITE-3", OK=4), linux_json("SITE-3"), ["bzImage: livepatch -> OK was not seen again"]),
    ],
)
def test_changes_since_the_last_run(last: object, this: object, told: list[str], tmp_path: Path) -> None:
    """Rules that stand otherwise and answers that are new or gone are told, a line each."""
    files = [tmp_path / "last.json", tmp_path / "this.json"]
    for path, value in zip(files, (last, this), strict=True):
        path.write_text(json.dumps(value))
    done = subprocess.run([sys.executable, CHANGES, *files], capture_output=True, text=True, check=True)

    assert [f"- {line}" for line in told] == done.stdout.splitlines()
