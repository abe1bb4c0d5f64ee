"""Debian packages without installing them: apt with directories of its own, and with the mirrors of this machine.

We take only the mirrors from the machine's configuration, and how to reach them (proxies, say): no hooks and no
preferences. apt checks signatures as ever, with the archive's keyring if that is there and else with the keys that the
machine trusts, and unpacks nothing that it cannot authenticate.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from impl.linux.host.tools import run
from spec.errors import BadInputError

__all__ = ["Apt", "Mirrors", "Package", "find_mirrors", "parse_packages", "parse_uris", "required"]

# what apt prints is read
ENGLISH = {**os.environ, "LC_ALL": "C"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
RELEASES = "bullseye bookworm trixie forky oldoldstable oldstable stable testing sid unstable".split()
INDEX = re.compile(r"'(?P<uri>[^']+)/dists/(?P<suite>[^/']+)/main/binary-[^/]+/Packages[^/']*'")


@dataclass(frozen=True, slots=True)
class Mirrors:
    """URIs of mirrors: `security` has the suites whose names end in -security, `archive` all others."""

    archive: str
    security: str | None

    def sources(self, suites: Iterable[str], architecture: str) -> list[str]:
        """The lines of a sources list; suites that the machine has no mirror for are left out."""
        trust = f" signed-by={KEYRING}" if KEYRING.exists() else ""
        mirrors = [(self.security if suite.endswith("-security") else self.archive, suite) for suite in suites]
        return [f"deb [arch={architecture}{trust}] {mirror} {suite} main" for mirror, suite in mirrors if mirror]


@dataclass(frozen=True, slots=True)
class Package:
    """A line of an index: `depends` names packages, each the first of its alternatives."""

    name: str
    version: str
    depends: tuple[str, ...]


class Apt:
    """One private apt: its state, its lists and its cache are in `directory`; architecture: as Debian calls it."""

    def __init__(self, directory: Path, architecture: str) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True)
        configuration = directory / "apt.conf"
        dumped = run("apt-config", ["dump"], env=ENGLISH).decode()
        configuration.write_text(_configure(directory, architecture, dumped))
        self._directory = directory
        self._architecture = architecture
        self._environment = {**ENGLISH, "APT_CONFIG": str(configuration)}
        self._mirrors = find_mirrors(directory / "lists")

    def packages(self, suites: Sequence[str]) -> Mapping[str, Package]:
        """Fetch the indexes of these suites: every package, by name."""
        (self._directory / "sources.list").write_text(
            "\n".join(self._mirrors.sources(suites, self._architecture)) + "\n"
        )
        self._run("apt-get", "-qq", "update")
        return parse_packages(self._run("apt-cache", "dumpavail").decode())

    def unpack(self, packages: Sequence[Package], root: Path) -> None:
        """Fetch packages, which packages() has listed, and unpack them into one tree."""
        debs = self._directory / "debs"
        debs.mkdir()
        names = [f"{package.name}={package.version}" for package in packages]
        self._run("apt-get", "-qq", "download", *names, cwd=debs)
        for deb in sorted(debs.glob("*.deb")):
            run("dpkg-deb", ["-x", deb, root])
            deb.unlink()
        debs.rmdir()

    def _run(self, tool: str, *arguments: str, cwd: Path | None = None) -> bytes:
        return run(tool, arguments, cwd=cwd, env=self._environment)


def find_mirrors(lists: Path, options: Sequence[str] = ()) -> Mirrors:
    """The mirrors of this machine, as apt itself reads its sources. lists: an empty directory. options: for apt."""
    arguments = ["-o", f"Dir::State::lists={lists}", *options, "update", "--print-uris"]
    return parse_uris(run("apt-get", arguments, env=ENGLISH).decode())


def parse_uris(printed: str) -> Mirrors:
    """Debian's mirrors among the URIs that apt would fetch; other archives may have suites of the same names."""
    found: dict[bool, str] = {}
    for index in INDEX.finditer(printed):
        release, _, rest = index["suite"].partition("-")
        folders = urlsplit(index["uri"]).path.split("/")
        if release in RELEASES and any(folder.startswith("debian") for folder in folders):
            found.setdefault(rest == "security", index["uri"])
    if False not in found:
        raise BadInputError("apt's configuration has no Debian mirror: add one to /etc/apt/sources.list.d")
    return Mirrors(found[False], found.get(True))


def parse_packages(index: str) -> dict[str, Package]:
    """The stanzas of an index by package name."""
    stanzas = (_read_fields(stanza) for stanza in index.split("\n\n") if stanza.strip())
    packages = (Package(fields["Package"], fields["Version"], _read_dependencies(fields)) for fields in stanzas)
    return {package.name: package for package in packages}


def required(
    packages: Mapping[str, Package], names: Iterable[str], wanted: Callable[[str], object] = bool
) -> list[Package]:
    """These packages and all that they depend on, if the name is `wanted`; those that are only virtual are left out."""
    found: dict[str, Package] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in packages and name not in found and wanted(name):
            found[name] = packages[name]
            waiting += packages[name].depends
    return list(found.values())


def _read_fields(stanza: str) -> dict[str, str]:
    lines = (line.partition(": ") for line in stanza.splitlines() if not line.startswith(" "))
    return {name: value for name, _, value in lines}


def _read_dependencies(fields: Mapping[str, str]) -> tuple[str, ...]:
    clauses = (clause.strip() for clause in fields.get("Depends", "").split(","))
    return tuple(re.split(r"[ |(:]", clause)[0] for clause in clauses if clause)


def _configure(directory: Path, architecture: str, dumped: str) -> str:
    """A configuration in place of the machine's, which is `dumped`; both fetch in the same way."""
    fetching = [line for line in dumped.splitlines() if re.match(r"Acquire::(?!IndexTargets|Languages)", line)]
    settings = {
        "Acquire::Languages": "none",
        "APT::Architecture": architecture,
        "APT::Sandbox::User": "root",  # apt's own user cannot reach a private directory
        "Dir::Cache": directory / "cache",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": directory / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": directory,
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": "/dev/null",
    }
    return "\n".join([*fetching, *(f'{name} "{value}";' for name, value in settings.items())]) + "\n"
