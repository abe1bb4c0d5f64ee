"""Builds exported selftests as tools/testing/selftests/bpf would, with a test_progs.h that knows only what they use."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from properties.export.files import write_files

__all__ = ["build_selftest", "compile_programs"]

TOOLS = {"clang": "clang", "bpftool": "bpftool", "gcc": "gcc libc6-dev"}
LIBRARY = Path("/usr/include/bpf/libbpf.h")

TEST_PROGS = """\
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

extern int failed;

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define CHECK_THAT(good, name, seen, expected) ({ \\
	bool holds = (good); \\
	if (!holds && ++failed) \\
		printf("FAIL: %s: %lld, expected %lld\\n", name, (long long)(seen), (long long)(expected)); \\
	holds; \\
})
#define ASSERT_EQ(a, b, name) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); CHECK_THAT(a_ == b_, name, a_, b_); })
#define ASSERT_GE(a, b, name) ({ __typeof__(a) a_ = (a); CHECK_THAT(a_ >= (b), name, a_, b); })
#define ASSERT_OK(a, name) ASSERT_EQ(a, 0, name)
#define ASSERT_OK_PTR(p, name) CHECK_THAT((p) != NULL, name, 0, 1)
"""

MAIN = """\
int failed;

void test_{name}(void);

int main(void)
{{
	test_{name}();
	return failed ? 1 : 0;
}}
"""


def compile_programs(files: Mapping[str, str], directory: Path) -> str:
    """Compile the programs and make their skeleton; the name of the test. Skipped where a tool is missing."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    missing += [] if LIBRARY.exists() else ["libbpf-dev"]
    if missing:
        pytest.skip(f"selftests cannot be built: apt-get install {' '.join(missing)}")
    write_files(directory, files)
    (path,) = (directory / "progs").glob("*.c")
    name = path.stem
    include = next(iter(sorted(Path("/usr/include").glob("*-linux-gnu"))))
    run(directory, "clang", "-target", "bpf", "-O2", "-g", "-Wall", "-Werror", f"-I{include}", "-c", f"progs/{name}.c")
    run(directory, "bpftool", "gen", "object", f"{name}.linked.o", f"{name}.o")
    skeleton = run(directory, "bpftool", "gen", "skeleton", f"{name}.linked.o", "name", name)
    (directory / f"{name}.skel.h").write_text(skeleton)
    return name


def build_selftest(files: Mapping[str, str], directory: Path) -> Path:
    """A program that runs one test; its status is 1 if an assertion fails."""
    name = compile_programs(files, directory)
    (directory / "test_progs.h").write_text(TEST_PROGS)
    (directory / "main.c").write_text(MAIN.format(name=name))
    flags = ("-Wall", "-Werror", "-static", "-s", "-I.", "-o", "test")
    run(directory, "gcc", *flags, f"prog_tests/{name}.c", "main.c", "-lbpf", "-lelf", "-lz")
    return directory / "test"


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
