"""Each seed of the project as a program, a selftest and a text; what has no counterpart is told with its line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from properties import __main__ as front_door
from properties.export.files import write_files
from properties.export.language import Invocation, Raw, spell
from properties.export.mail import WIDTH, Seen, mail, watch
from properties.export.program import program_files, spell_trace
from properties.export.recorded import record, setting_of
from properties.export.rules import cited_in, rules
from properties.export.selftest import selftest_files
from properties.lockstep.coverage import rule_ids
from properties.runs.corpus import EVERY, SEEDS
from properties.systems.naming import resolve
from spec.errors import BadInputError
from spec.seeds import parse_seed
from tests.support.exporting import compile_c, paths
from tests.support.selftests import build_selftest

HEADER = "world synthetic\nsemantics linux-6.12\n---\n"
SENTENCE = re.compile(r"\S+\.seed(:\d+)?: [^\n]+[^.\n]")

SLEEPER = "bpf_prog_load p2 fentry sleepable\nbpf_raw_tracepoint_open l2 p2 foo1"
SLEEPING = f"{SLEEPER}\ntask t1 foo1 1\nstep t1 to=program:p2 how=sleep"

needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc is not installed: apt-get install gcc libc6-dev"
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a seed file of the synthetic world."""

    def make(steps: str, header: str = HEADER) -> Path:
        path = tmp_path / "one.seed"
        path.write_text(header + steps + "\n")
        return path

    return make


def refused(path: Path) -> str:
    """Why a seed cannot become a program; empty if it can."""
    try:
        program_files(record(setting_of(path)), [])
    except BadInputError as error:
        return str(error)
    return ""


@needs_gcc
@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_a_seed_becomes_a_program_or_a_sentence(path: Path, tmp_path: Path) -> None:
    """A program passes gcc without a warning, or the line without a counterpart is told."""
    sentence = refused(path)
    if sentence:
        assert SENTENCE.fullmatch(sentence)
        return
    write_files(tmp_path, program_files(record(setting_of(path)), ["about */ it"]))

    assert compile_c(tmp_path / f"{path.stem}.c", None) == ""


@needs_gcc
@pytest.mark.parametrize(
    "name",
    [
        "filter-remove-with-reset",
        "graph-around-a-trampoline",
        "limit-of-38-programs",
        "tasks/a-sleeper-before-a-program-that-leaves",
    ],
)
def test_a_program_is_optimized_without_a_warning(name: str, tmp_path: Path) -> None:
    """Without programs, with the graph tracer, with many programs, with a task: gcc sees more when it optimizes."""
    path = SEEDS / f"{name}.seed"
    write_files(tmp_path, program_files(record(setting_of(path)), []))

    assert compile_c(tmp_path / f"{path.stem}.c", tmp_path / path.stem) == ""


def test_most_seeds_become_programs() -> None:
    """Those that do not are the ones that a kernel in an emulator is not asked for either."""
    sentences = [sentence for path in paths() if (sentence := refused(path))]
    reasons = (
        "traces every function",
        "no kernel",
        "extensions",
        "no hooks of LSM",
        "nothing outside of the kernel makes",
        "functions of a name",
        "not of one BTF",
        "loaded for another BTF",
        "cannot be compiled into a module",
        "no text but sites of ftrace",
        "a later one",
        "numbers",
        "tracefs",
    )

    assert len(paths()) - len(sentences) >= 45
    assert [] == [sentence for sentence in sentences if not any(reason in sentence for reason in reasons)]


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_a_text_fits(path: Path) -> None:
    """A mail has a subject, the steps, what each kernel's rules say, and no line of more than 72 columns."""
    text = mail(record(setting_of(path)), None)

    assert text.startswith("Subject: ")
    assert [] == [line for line in text.splitlines() if len(line) > WIDTH or line != line.rstrip()]
    assert 3 <= len(re.findall(r"^  linux-[0-9.]+: ", text, re.MULTILINE))
    assert set(cited_in(text)) <= set(rules())


def test_a_function_is_counted_among_those_of_its_module(tmp_path: Path) -> None:
    """The second function of a symbol may be the first one of its home."""
    path = tmp_path / "two.seed"
    world = (SEEDS / "module-shadows-vmlinux.json").as_posix()
    path.write_text(f"world {world}\nsemantics linux-7.3\n---\ncall shadow@2 1 2 -> body =3\n")
    written = program_files(record(setting_of(path)), [])["two.c"]

    assert re.search(r'"shadow@2", "shadow", HOME_m1, 1,', written)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("bpf_prog_load p freplace", "extensions"),
        ("fail alloc", "makes 'alloc' fail"),
        ("fail jit_charge 2", "a later one"),
        ("register_ftrace_graph g", "without a filter"),
        ("register_ftrace_graph g filter=*", "functions that the world does not have"),
        ("register_ftrace_graph g filter=foo1 function=outer depth=1", "GRAPH-6"),
        ("ftrace_ops o\nftrace_set_filter o 2", "numbers its records"),
        ("ftrace_ops o\nftrace_set_filter o vfs_*", "functions that the world does not have, as vfs_"),
        ("ftrace_ops o\nregister_ftrace_function o", "traces every function"),
        ("register_ftrace_graph a filter=foo1\nregister_ftrace_graph b filter=foo1 depth=1", "the same for all users"),
        ("task t1 foo1 1", "stops a task only in a sleepable program"),
        (f"{SLEEPER}\ntask t1 foo1 1\nstep t1 to=image how=sleep", "stops a task only in a sleepable program"),
        (f"{SLEEPER}\ntask t1 foo1 1\nstep t1 to=program:p2", "stops a task only in a sleepable program"),
        (f"{SLEEPING}\ncall foo2 1 2", "its module is busy with the call of its task"),
        (f"{SLEEPING}\ngrace_period rcu_tasks_trace", "does not wait for what its own task holds up"),
    ],
)
def test_a_step_without_a_counterpart(write: Callable[[str], Path], step: str, reason: str) -> None:
    """The sentence names file, line and step."""
    path = write(step)
    sentence = refused(path)

    assert sentence.startswith(f"{path}:{3 + len(step.splitlines())}: '{step.splitlines()[-1]}' has no counterpart")
    assert reason in sentence


def test_an_operation_of_another_kernel(write: Callable[[str], Path]) -> None:
    """A step that the semantics do not have, and semantics that no kernel has, are bad input."""
    with pytest.raises(BadInputError, match=r"one.seed:4: 'register_ftrace_direct' does not exist"):
        record(setting_of(write("register_ftrace_direct foo1 T1")))

    assert "are those of no kernel" in refused(write("site foo1", HEADER.replace("linux-6.12", "proposal-2021")))


def test_what_the_seed_expects_is_compared(write: Callable[[str], Path]) -> None:
    """Where a seed expects other than the rules say, the program compares with the seed, and a text tells both."""
    recording = record(setting_of(write("ftrace_ops o -> -EBUSY\ncall foo1 5 -> ops:o body =5")))
    program = program_files(recording, [])["one.c"]

    assert '"-EBUSY");' in program
    assert 'WORDS(at(FN_foo1), 5, 0, 0, 0, 0, 0), "ops:o body =5", NULL)' in program
    assert "line 4: the seed expects -EBUSY, the rules 0" in mail(recording, None)


def test_a_text_tells_what_a_system_did() -> None:
    """With a system the mail has the first divergence, or that there was none."""
    path = SEEDS / "trampoline-restored-when-count-returns-to-one.seed"
    setting = setting_of(path)
    broken, honest = "impl.planted.ftrace:tramp_not_restored", "batched"
    seen = watch(setting, broken, resolve(broken))
    assert seen.divergence is not None
    text = mail(record(setting), seen)

    assert f"{broken}\ndiffers in sites at line" in text or f"{broken} differs in" in " ".join(text.split())
    assert watch(setting, honest, resolve(honest)) == Seen(honest, None)
    assert "batched did so in all 11 steps." in mail(record(setting), Seen(honest, None))
    assert max(map(len, text.splitlines())) <= WIDTH


def test_every_rule_can_be_cited() -> None:
    """Each rule of spec/README.md is read with its text and its source."""
    assert tuple(rules()) == rule_ids()
    assert all(rule.text and rule.source for rule in rules().values())


def test_values_in_c() -> None:
    """Strings are escaped, wide numbers have their suffix, and a call is spelled with its arguments."""
    assert spell('a"b\\') == '"a\\"b\\\\"'
    assert spell("a\nb\n").split() == ['"a\\n"', '"b\\n"']
    assert (spell(None), spell(value=True), spell(-5)) == ("NULL", "true", "-5")
    assert spell((1 << 64) - 1) == "0xffffffffffffffffull"
    assert spell(1 << 40) == "1099511627776ll"
    assert spell(Invocation("f", (Raw("X"), "y"))) == 'f(X, "y")'


def test_a_trace_in_full() -> None:
    """What each event saw stands in parentheses; a helper's errno is its name."""
    seed = parse_seed(
        f"{HEADER}bpf_prog_load p fexit func_ip\nbpf_raw_tracepoint_open l p foo2 cookie=7\ncall foo2 1 -2\n"
    )
    recording = record(setting_of(Path("x.seed"), seed))
    trace = recording.steps[-1].trace
    assert trace is not None

    assert spell_trace(trace) == (
        "body(1,18446744073709551614) fexit:p(1,18446744073709551614,EINVAL;count=2;ret=18446744073709551615;"
        "cookie=7;ip=foo2) =-1"
    )


def test_a_selftest_has_its_two_files() -> None:
    """Programs have sections for the kernel's own functions, and calls are checked by the order of the programs."""
    files = selftest_files(record(setting_of(SEEDS / "fmod-ret-order.seed")), ["about"])

    assert set(files) == {"prog_tests/fmod_ret_order.c", "progs/fmod_ret_order.c"}
    assert 3 == files["progs/fmod_ret_order.c"].count('SEC("fmod_ret/bpf_modify_return_test")')
    assert 'check_runs(skel, NUMBERS(1, 2, 3), NUMBERS(3), "call foo1 1");' in files["prog_tests/fmod_ret_order.c"]


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ("livepatch foo1", "libbpf has no such call"),
        ("ftrace_ops o\nftrace_free_filter o\nftrace_free_filter o", "libbpf has no such call"),
        ("bpf_prog_load p fentry\nbpf_raw_tracepoint_open l p outer", "no function for tests in the place of outer"),
        ("bpf_prog_load p fentry calls=foo1", "no kfunc"),
        ("bpf_prog_load p fentry returns=1", "loads all programs, or none"),
        ("bpf_prog_load p fentry -> -EINVAL", "expects other than the rules"),
        ("call foo1 1", "nothing calls it"),
        ("task t1 foo1 1", "cannot stop a task"),
    ],
)
def test_what_a_selftest_cannot_do(write: Callable[[str], Path], steps: str, reason: str) -> None:
    """One sentence with the line."""
    with pytest.raises(BadInputError, match=rf"one.seed:\d+: '.*' has no counterpart in a selftest: .*{reason}"):
        selftest_files(record(setting_of(write(steps))), [])


def test_the_verb_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each form is written below DIR, which may stand behind the option; a text without DIR is printed."""
    seed = str(SEEDS / "fmod-ret-order.seed")
    for form in ("c", "selftest", "mail"):
        assert 0 == front_door.main(["export", seed, "--as", form, str(tmp_path / form)])
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.c") if "module" not in path.parts}
    capsys.readouterr()

    assert written == {
        "c/fmod-ret-order.c",
        "selftest/prog_tests/fmod_ret_order.c",
        "selftest/progs/fmod_ret_order.c",
    }
    assert (tmp_path / "c/Makefile").is_file()
    assert (tmp_path / "c/module/functions.c").is_file()
    assert 0 == front_door.main(["export", seed, "--as", "mail"])
    assert capsys.readouterr().out == (tmp_path / "mail/fmod-ret-order.txt").read_text()


def test_bad_input_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A seed that is not there, one without a counterpart, and --system with another form: status 2 and a sentence."""
    for words in (
        ["none.seed", "--as", "mail"],
        [str(SEEDS / "freplace-is-exclusive.seed"), "--as", "c", str(tmp_path / "x")],
        [str(EVERY / "programs-call-each-other.seed"), "--as", "selftest", str(tmp_path / "x")],
        [str(SEEDS / "fmod-ret-order.seed"), "--as", "c", "--system", "batched"],
    ):
        assert 2 == front_door.main(["export", *words])
        assert 1 == capsys.readouterr().err.count("\n")
    assert not (tmp_path / "x").exists()


def test_selftests_compile(tmp_path: Path) -> None:
    """The programs by clang, their skeleton by bpftool, and the test against libbpf's headers."""
    for name in ("fmod-ret-order", "programs-run-newest-first"):
        build_selftest(selftest_files(record(setting_of(SEEDS / f"{name}.seed")), []), tmp_path / name)
