"""Plug-ins: how a name becomes a system, and what becomes of systems that raise, hang, die or answer nonsense."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from impl import linux
from properties.lockstep.lockstep import Lockstep
from properties.systems import naming as systems
from properties.systems import wire
from properties.systems.exec_system import exec_factory
from spec.errors import BadInputError
from spec.operations import FtraceOps
from spec.outcomes import Errno
from spec.seeds import Step, parse_operation
from spec.semantics import PRESETS
from spec.worlds import synthetic
from tests.support.ordinary_steps import STEPS

EXAMPLE = Path(__file__).parents[1] / "support" / "example_process.py"
SEMANTICS = PRESETS["linux-7.3"]
O1 = FtraceOps("o1")
PLUG_IN = """
import time
from model import system
from spec.costs import Cost
from spec.outcomes import Ok

class Broken:
    def __init__(self, inner, **broken):
        self.inner, self.broken = inner, broken
    name = "broken"
    @property
    def supports(self):
        return self.inner.supports
    def __getattribute__(self, name):
        if name in ("apply", "sites", "call", "cost", "close"):
            return self.broken.get(name, getattr(self.inner, name))
        return object.__getattribute__(self, name)
    apply = sites = call = cost = close = None

def good(world, semantics): return system(world, semantics)
def raises(world, semantics): return Broken(system(world, semantics), apply=lambda operation: 1 / 0)
def exits(world, semantics): return Broken(system(world, semantics), apply=lambda operation: exit(3))
def hangs(world, semantics): return Broken(system(world, semantics), apply=hang)
def wrong(world, semantics): return Broken(system(world, semantics), apply=lambda operation: 0, cost=lambda: 3,
    sites=lambda: {"foo1": "nop"}, call=lambda function, arguments: "body")
def not_made(world, semantics): raise ValueError("no kernel\\nhere")
def no_system(world, semantics): return 7
def half_system(world, semantics): return Cost()
number = 7

def hang(operation):
    while True:
        try:
            time.sleep(1)
        except Exception:
            pass
"""


@pytest.fixture
def plug_in(tmp_path: Path) -> Path:
    """A file with factories, good and bad."""
    path = tmp_path / "plug_in.py"
    path.write_text(PLUG_IN)
    return path


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No test leaves a child process, a file descriptor or an alarm behind."""
    before = descriptors(), children()
    yield

    assert before == (descriptors(), children())
    assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)


def children() -> set[str]:
    """Processes that this one has started: multiprocessing keeps one of its own once it has been used."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # behind the name, which may have anything in it: the state, then the parent
            _, parent = path.read_text().rpartition(")")[2].split()[:2]
            found |= {path.parent.name} if int(parent) == os.getpid() else set()
    return found


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def steps() -> list[Step]:
    return [Step(parse_operation(line)) for line in STEPS.strip().split("\n")]


def process(script: str, time_limit: float = 10.0) -> systems.System:
    """A system whose process is this Python script, with `answer(text)` for what it prints and `ask()` for a line."""
    prelude = "import sys, time, os; ask = sys.stdin.readline; answer = lambda text: print(text, flush=True); "
    code = (prelude + script).replace('"', '\\"')
    return exec_factory(f'"{sys.executable}" -c "{code}"', time_limit)(synthetic(), SEMANTICS)


HELLO = """ask(); answer('{"name": "x", "supports": ["ftrace_ops"]}'); """


@pytest.mark.parametrize("name", ["model", *(name for name in systems.BUILT_IN if name != "model")])
def test_built_in_names_resolve(name: str) -> None:
    """Every built-in name gives a system that attaches an ops and agrees with the model on it."""
    lockstep = Lockstep(synthetic(), SEMANTICS, [systems.resolve(name)])

    assert () == lockstep.run(steps())
    assert () == lockstep.close()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bathced", "unknown system 'bathced': write model, batched,"),
        ("no_such_module:system", "there is no module 'no_such_module'"),
        ("model:nothing", "'nothing' of model is not there: write a function 'nothing(world, semantics)'"),
        ("properties.systems.naming:FORMS", "'FORMS' of properties.systems.naming is not callable"),
        ("no/such/file.py:system", "there is no file no/such/file.py"),
        (":system", "unknown system ':system'"),
        ("exec:", "'exec:' lacks its command line"),
        ("exec:'", "the command line ''' cannot be read"),
        ("exec:no-such-program --fast", "there is no program 'no-such-program'"),
    ],
)
def test_a_name_that_is_none_is_bad_input(name: str, sentence: str) -> None:
    """A name that stands for no system is told in one sentence, with what to write."""
    with pytest.raises(BadInputError) as error:
        systems.resolve(name)

    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_world_or_semantics_is_bad_input(tmp_path: Path) -> None:
    """Unknown worlds and semantics are told with the known ones; a file is looked for beside the seed."""
    (tmp_path / "my.json").write_text("[]")
    with pytest.raises(
        BadInputError, match="unknown world 'synthetical': write one of synthetic, synthetic-1500, linux-6.1"
    ):
        systems.world_named("synthetical")
    with pytest.raises(BadInputError, match="unknown semantics 'linux': write one of linux-6.1"):
        systems.semantics_named("linux")
    with pytest.raises(BadInputError, match=r"my\.json"):
        systems.world_named("my.json", tmp_path)

    assert synthetic().functions == systems.world_named("synthetic").functions
    assert SEMANTICS is systems.semantics_named("linux-7.3")
    assert "linux-6.1" == systems.world_named("linux-6.1").name


def test_a_file_is_a_plug_in(plug_in: Path) -> None:
    """A system from a file, and one from a module, agree with the model through the guard."""
    for name in (f"{plug_in}:good", "model:system"):
        lockstep = Lockstep(synthetic(), SEMANTICS, [systems.resolve(name)])

        assert () == lockstep.run(steps())


def test_a_plug_in_file_that_fails_to_import_is_bad_input(tmp_path: Path) -> None:
    """What a plug-in raises while it is imported is one sentence."""
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(BadInputError, match=r"cannot import .*bad\.py': ZeroDivisionError: division by zero"):
        systems.resolve(f"{tmp_path}/bad.py:system")


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("no_system", "the factory returned a int, which is no System: it lacks 'name'"),
        ("half_system", "the factory returned a Cost, which is no System: it lacks 'name'"),
    ],
)
def test_a_factory_of_something_else_is_bad_input(plug_in: Path, factory: str, sentence: str) -> None:
    """A factory that returns no System is told what is missing."""
    with pytest.raises(BadInputError, match=sentence):
        systems.resolve(f"{plug_in}:{factory}")(synthetic(), SEMANTICS)


def test_a_factory_that_raises_has_crashed(plug_in: Path) -> None:
    """The crash is one line, and the traceback is kept."""
    with pytest.raises(systems.SystemCrashError) as error:
        systems.resolve(f"{plug_in}:not_made")(synthetic(), SEMANTICS)

    assert "the factory raised ValueError: no kernel here" == str(error.value)
    assert "in not_made" in error.value.details


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("raises", r"apply\(ftrace_ops\) raised ZeroDivisionError: division by zero"),
        ("exits", r"apply\(ftrace_ops\) raised SystemExit: 3"),
        ("hangs", r"apply\(ftrace_ops\) did not return within 0.2 s"),
        ("wrong", r"apply\(ftrace_ops\) returned a int: an Ok or Errno is expected"),
    ],
)
def test_a_plug_in_that_fails_has_crashed(plug_in: Path, factory: str, sentence: str) -> None:
    """Exceptions, exits, hangs and wrong types of a plug-in's apply are a SystemCrashError."""
    system = systems.resolve(f"{plug_in}:{factory}", time_limit=0.2)(synthetic(), SEMANTICS)
    with pytest.raises(systems.SystemCrashError, match=sentence):
        system.apply(O1)


def test_wrong_types_of_observations_have_crashed(plug_in: Path) -> None:
    """Sites, traces and costs are checked like outcomes."""
    system = systems.resolve(f"{plug_in}:wrong")(synthetic(), SEMANTICS)
    with pytest.raises(systems.SystemCrashError, match=r"sites\(\) returned a str among its values"):
        system.sites()
    with pytest.raises(systems.SystemCrashError, match=r"call\(foo1\) returned a str: a Trace is expected"):
        system.call("foo1", (1,))
    with pytest.raises(systems.SystemCrashError, match=r"cost\(\) returned a int: a Cost is expected"):
        system.cost()


@pytest.mark.parametrize("inner", ["model", "batched"])
def test_the_example_process_agrees(inner: str) -> None:
    """The documented example of an `exec:` system agrees with the model on every kind of request."""
    command = f"exec:{sys.executable} {EXAMPLE} {inner}"
    lockstep = Lockstep(synthetic(), SEMANTICS, [systems.resolve(command)])

    assert () == lockstep.run(steps())
    assert () == lockstep.close()
    assert len(steps()) == len(lockstep.history)


def test_the_example_plug_in_agrees_and_its_bug_is_seen() -> None:
    """The documented plug-in agrees with the model; the one that loses cookies diverges where a program sees one."""
    example = EXAMPLE.with_name("example_system.py")
    lines = ("bpf_prog_load p1 fentry multi", "bpf_link_create l1 p1 foo1:7", "call foo1 1")
    cookies = [Step(parse_operation(line)) for line in lines]
    for name, aspects in (("system", []), ("forgetful", ["trace"])):
        lockstep = Lockstep(synthetic(), SEMANTICS, [systems.resolve(f"{example}:{name}")])

        assert aspects == [divergence.aspect for divergence in lockstep.run(cookies)]


def test_a_lockstep_with_a_dying_process_is_a_crash_divergence() -> None:
    """A process that dies in the middle is a divergence of the aspect crash, at the step where it died."""
    factory = exec_factory(f'"{sys.executable}" -c "import sys; sys.exit(3)"', 5.0)
    divergence = Lockstep(synthetic(), SEMANTICS, [factory]).run(steps())[0]

    assert ("crash", 0) == (divergence.aspect, divergence.index)
    assert "exited with 3" in divergence.observed


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("sys.exit('no license')", "asked for hello: it exited with 1; its last words: no license"),
        ("os.kill(os.getpid(), 11)", "asked for hello: it was killed by SIGSEGV"),
        (
            "ask(); answer('hello')",
            "asked for hello: 'hello' is not an object on one line: is no JSON: invalid character",
        ),
        (
            "ask(); answer('[' * 100000)",
            r"asked for hello: .* is not an object on one line: expected an object, not a list",
        ),
        (
            "ask(); answer('[]')",
            r"asked for hello: '\[\]' is not an object on one line: expected an object, not a list",
        ),
        ("""ask(); answer('{"name": "x"}')""", "asked for hello: supports: is missing, in {'name': 'x'}"),
        (
            """ask(); answer('{"name": 1, "supports": []}')""",
            "asked for hello: name: expected a string, not an integer, in {'name': 1",
        ),
        (
            """ask(); answer('{"name": "x", "supports": ["fly"]}')""",
            r"asked for hello: supports\[0\]: expected one of await, bpf_link_create, .*'fly'",
        ),
        ("""ask(); answer('{"error": "no kernel"}')""", "asked for hello: it gave up: 'no kernel'"),
        ("ask(); sys.stdout.write('x' * (65 << 20))", "asked for hello: its answer is longer than 64 MiB"),
    ],
)
def test_a_process_that_does_not_begin_has_crashed(script: str, sentence: str) -> None:
    """What goes wrong at hello is one line: the program, the request, the reason, the last words."""
    with pytest.raises(systems.SystemCrashError, match=sentence) as error:
        process(script)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("ask(); sys.exit(0)", "asked for apply ftrace_ops: it exited with 0"),
        ("ask(); print('lost my mind', file=sys.stderr); 1 / 0", "its last words: .*ZeroDivisionError"),
        ("ask(); answer('garbage')", "asked for apply ftrace_ops: 'garbage' is not an object on one line: is no JSON"),
        ("ask(); answer('{}')", "asked for apply ftrace_ops: outcome: is missing, in {}"),
        ("""ask(); answer('{"outcome": 0}')""", "outcome: expected a string, not an integer, in {'outcome': 0}"),
        (
            """ask(); answer('{"outcome": "EBUSY"}')""",
            "outcome: expected 0, or a minus and an errno's name such as -EBUSY, in {'outcome': 'EBUSY'}",
        ),
        (
            """ask(); answer('{"outcome": "0", "warn": 1}')""",
            "warn: expected true or false, not an integer, in {'outcome': '0', 'warn': 1}",
        ),
        ("answer('{}'); time.sleep(60)", "it answered without being asked|outcome: is missing"),
    ],
)
def test_a_process_that_breaks_off_has_crashed(script: str, sentence: str) -> None:
    """What goes wrong later names the operation; the process is gone, and asking again says so."""
    system = process(HELLO + script)
    with pytest.raises(systems.SystemCrashError, match=sentence):
        system.apply(O1)
    with pytest.raises(systems.SystemCrashError, match="the process has ended"):
        system.sites()
    system.close()
    system.close()


def test_a_process_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """At the time limit the whole process group is killed, a child that holds no pipe included."""
    pid_file = tmp_path / "pid"
    child = "import subprocess; p = subprocess.Popen(['sleep', '60'], stdin=-3, stdout=-3, stderr=-3); "
    system = process(f"{HELLO}ask(); {child}open('{pid_file}', 'w').write(str(p.pid)); time.sleep(60)", 2.0)
    start = time.monotonic()
    with pytest.raises(systems.SystemCrashError, match="asked for apply ftrace_ops: no answer within 2 s"):
        system.apply(O1)

    assert 10 > time.monotonic() - start
    assert ended(int(pid_file.read_text()))


def test_a_process_that_ignores_close_is_killed() -> None:
    """close() waits for the time limit and then ends the process; it is no crash."""
    system = process(f"{HELLO}import signal; signal.signal(15, signal.SIG_IGN); time.sleep(60)", 1.0)
    start = time.monotonic()
    system.close()

    assert 10 > time.monotonic() - start


def test_a_chatty_process_does_not_block() -> None:
    """Megabytes on stderr and an answer before the request is read do not stop the exchange."""
    system = process("sys.stderr.write('x' * (4 << 20)); " + HELLO + """ask(); answer('{"outcome": "-EBUSY"}')""")

    assert Errno("EBUSY") == system.apply(O1)
    system.close()


def ended(pid: int) -> bool:
    """Whether a process ends soon: a signal that was sent takes its time. One that nobody has reaped yet has ended."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_the_documented_exchange_is_what_the_example_does() -> None:
    """Every exchange in docs/exec-protocol.md, but for hello's, is what the example process sends and gets."""
    document = (EXAMPLE.parents[2] / "docs" / "exec-protocol.md").read_text()
    lines = [line for line in document.split("\n") if line.startswith(("> ", "< "))]
    exchanges = [(asked[2:], got[2:]) for asked, got in zip(lines[::2], lines[1::2], strict=False)]
    channel = exec_factory(f"{sys.executable} {EXAMPLE} model", 10.0)(synthetic(), SEMANTICS)._channel

    assert 6 < len(exchanges)
    for asked, got in exchanges:
        if '"hello"' not in asked:
            assert wire.read_line(got.encode()) == wire.read_line(channel.exchange(asked.encode() + b"\n"))
    channel.close()


def test_a_kernel_is_asked_for_defects_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a verb names, which a search of it declines otherwise."""
    asked: list[object] = []
    monkeypatch.setattr(linux, "_factory", lambda _, names: asked.append(names))
    systems.resolve("linux-7.3", asked=("DEFECT-24",))
    systems.resolve("linux-7.3")

    assert [("DEFECT-24",), ()] == asked
