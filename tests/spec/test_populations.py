"""Population files: what the three built-in kernels say, and how a user's own file is read and refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from spec import populations
from spec.errors import BadInputError
from spec.globs import Pattern
from spec.worlds import Function, World

SIZES = {"linux-6.1": 44_334, "linux-6.12": 49_952, "linux-7.3": 56_475}
"""Records of ftrace, those of some modules among them."""
CORE = {"linux-6.1": 38_252, "linux-6.12": 42_862, "linux-7.3": 47_382}
"""Those of the kernel proper."""
BESIDE = {"linux-6.1": 7_642, "linux-6.12": 8_274, "linux-7.3": 10_437}
"""FUNCs of vmlinux's BTF whose name no record has, other names of functions with a record included."""
ALIASES = {"linux-6.1": 17, "linux-6.12": 19, "linux-7.3": 22}
INT, POINTER, PAIR, VOID = range(4)


def small() -> dict[str, Any]:
    """A population of six functions, three of them in modules."""
    return {
        "kernel": "6.12",
        "release": "6.12.1",
        "source": "made up",
        "types": [["INT", 4, "int"], ["PTR", 8, "void *"], ["STRUCT", 16, "struct pair"], ["VOID", 0, "void"]],
        "functions": [
            {"name": "second", "address": "ffffffff81000200", "btf_id": 2, "args": [INT, POINTER], "ret": INT},
            {"name": "first", "address": "ffffffff81000100", "btf_id": 1, "args": [], "ret": VOID},
            {"name": "in_b", "address": None, "module": "b", "btf_id": 3, "args": [PAIR], "ret": INT},
            {"name": "in_a", "address": None, "module": "a"},
            {"name": "second", "address": None, "module": "b", "btf_id": 5, "args": [INT, POINTER], "ret": INT},
            {"name": "printf", "address": "0xffffffff81000300", "btf_id": 4, "args": [1], "ret": 0, "variadic": True},
        ],
    }


def read(tmp_path: Path, population: object) -> World:
    path = tmp_path / "population.json"
    path.write_text(population if isinstance(population, str) else json.dumps(population))
    return populations.read_population(path)


def names(world: World) -> list[str]:
    return [function.name for function in world.functions]


def named_by_btf(functions: tuple[Function, ...]) -> int:
    return sum(function.btf_id is not None for function in functions)


@pytest.mark.parametrize("name", SIZES)
def test_each_built_in_population_is_complete(name: str) -> None:
    """Every function that available_filter_functions lists is there once, under a name of its own."""
    world = populations.load(name)

    assert SIZES[name] == len(world.functions) == len(world.by_name)
    assert CORE[name] == sum(function.module is None for function in world.functions)
    assert BESIDE[name] - ALIASES[name] == sum(function.module is None for function in world.others)
    assert name == world.name


def test_built_in_names_are_those_of_the_data_files() -> None:
    """No data file is without its name, and no name without its file."""
    files = Path(populations.__file__).parent.glob("*.json.gz")

    assert set(SIZES) == set(populations.built_in()) == {file.name.removesuffix(".json.gz") for file in files}


@pytest.mark.parametrize(
    ("name", "glob", "matched", "named"),
    [
        ("linux-7.3", "x86*", 112, 109),
        ("linux-7.3", "vfs_*", 79, 76),
        ("linux-6.12", "x86*", 96, 95),
        ("linux-6.12", "vfs_*", 78, 76),
        ("linux-6.1", "x86*", 93, 92),
        ("linux-6.1", "vfs_*", 73, 71),
    ],
)
def test_well_known_wildcards_match_what_the_kernels_have(name: str, glob: str, matched: int, named: int) -> None:
    """The wildcards of the talk select the same functions as on the running kernels, of which BTF names most."""
    functions = populations.load(name).matching(glob)

    assert (matched, named) == (len(functions), named_by_btf(functions))


@pytest.mark.parametrize("name", SIZES)
def test_functions_stand_in_address_order(name: str) -> None:
    """Core functions come by ascending address, modules behind all of them."""
    path = Path(populations.__file__).parent / f"{name}.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))["functions"]
    core = [row for row in rows if "module" not in row]
    by_address = sorted((int(row["address"], 16), row["name"]) for row in core if row["address"])
    unaddressed = {row["name"] for row in core if not row["address"]}
    world = populations.load(name)
    found = [function.symbol for function in world.functions[: len(core)]]

    assert [symbol for _, symbol in by_address] == [symbol for symbol in found if symbol not in unaddressed]
    assert all(function.module for function in world.functions[len(core) :])


@pytest.mark.parametrize("name", SIZES)
def test_only_the_first_symbol_of_a_name_is_named_by_a_btf(name: str) -> None:
    """Further symbols are numbered, vmlinux's first; each BTF names one of its own, by an id that is no other's."""
    world = populations.load(name)
    everything = (*world.functions, *world.others)
    numbers: dict[str, list[int]] = {}
    for function in sorted(everything, key=lambda one: one.module is not None):
        numbers.setdefault(function.symbol, []).append(int(function.name.partition("@")[2] or 1))

    assert all(found == list(range(1, len(found) + 1)) for found in map(sorted, numbers.values()))
    assert len(everything) == len({function.name for function in everything})
    named = [function for function in everything if function.btf_id is not None]
    assert len(named) == len({(f.module, f.symbol) for f in named}) == len({(f.module, f.btf_id) for f in named})
    last = max(function.btf_id or 0 for function in named if function.module is None)
    assert all((function.btf_id or 0) > last for function in named if function.module)


@pytest.mark.parametrize(
    ("name", "function", "lookup"),
    [
        ("linux-7.3", "sched_clock", "no_site"),
        ("linux-6.1", "t_show", "no_site"),
        ("linux-7.3", "ksys_semctl", "no_symbol"),
        ("linux-6.12", "vfs_caches_init", "outside"),
        ("linux-7.3", "t_next", "no_site"),
        ("linux-6.12", "io_serial_in", "no_site"),
        ("linux-7.3", "ext4_init_fs", "no_symbol"),
        ("linux-6.1", "ext4_exit_fs", "outside"),
        ("linux-7.3", "vfs_read", ""),
        ("linux-7.3", "ext4_sync_file", ""),
    ],
)
def test_what_bpf_finds_by_a_name_is_known(name: str, function: str, lookup: str) -> None:
    """Notrace, inlined, `__init`, or an earlier symbol of the name, as tried on the running kernels (PROG-7)."""
    found = populations.load(name).find(function)

    assert found is not None
    assert lookup == found.lookup


@pytest.mark.parametrize(
    ("glob", "libbpf", "traceable"), [("vfs_*", 78, 76), ("ksys_*", 29, None), ("x86*", 129, 104), ("t_*", 7, None)]
)
def test_a_pattern_stands_for_what_libbpf_names(glob: str, libbpf: int, traceable: int | None) -> None:
    """As many ids as libbpf passes to 7.3.4, sites or not (GLOB-6); and what a tool leaves of them."""
    world = populations.load("linux-7.3")

    assert libbpf == len(world.expand(Pattern("", None, glob)))
    assert traceable in {None, len(world.expand(Pattern("traceable", None, glob)))}
    assert all(f.module == "ext4" for f in world.expand(Pattern("", "ext4", "ext4_*")))


def test_equal_prototypes_are_one_object() -> None:
    """Slots and shapes are worked out once for each prototype, not once for each function."""
    world = populations.load("linux-7.3")
    prototypes = [function.prototype for function in world.functions if function.prototype]

    assert len(set(prototypes)) == len({id(prototype) for prototype in prototypes})


@pytest.mark.parametrize(
    ("name", "attribute", "function"),
    [
        ("linux-6.1", "deny", "migrate_disable"),
        ("linux-6.12", "deny", "__rcu_read_lock"),
        ("linux-7.3", "deny", "___migrate_enable"),
        ("linux-6.1", "noreturn", "do_exit"),
        ("linux-6.12", "noreturn", "kthread_exit"),
        ("linux-7.3", "noreturn", "__x64_sys_exit_group"),
        ("linux-6.1", "fmod_ret", "security_file_open"),
        ("linux-6.12", "fmod_ret", "bpf_modify_return_test_tp"),
        ("linux-7.3", "fmod_ret", "bpf_modify_return_test2"),
        ("linux-7.3", "fmod_ret", "__x64_sys_openat"),
        ("linux-6.12", "sleepable", "bpf_fentry_test1"),
        ("linux-7.3", "sleepable", "__x64_sys_openat"),
    ],
)
def test_functions_on_the_kernels_lists_have_their_attribute(name: str, attribute: str, function: str) -> None:
    """What a kernel denies, does not return from, may modify or may sleep in is known by name."""
    assert attribute in populations.load(name).by_name[function].attributes


@pytest.mark.parametrize(
    ("name", "attribute", "function"),
    [
        ("linux-6.1", "deny", "__rcu_read_lock"),
        ("linux-6.1", "fmod_ret", "bpf_modify_return_test"),
        ("linux-6.1", "sleepable", "bpf_fentry_test1"),
        ("linux-6.12", "sleepable", "bpf_modify_return_test"),
        ("linux-6.12", "fmod_ret", "__x64_sys_openat"),
        ("linux-7.3", "fmod_ret", "vfs_read"),
        ("linux-7.3", "fmod_ret", "security_dump_masked_av.constprop.0"),
    ],
)
def test_functions_off_the_kernels_lists_lack_the_attribute(name: str, attribute: str, function: str) -> None:
    """The lists differ between kernels, and concern only functions that BTF names."""
    assert attribute not in populations.load(name).by_name[function].attributes


def test_a_file_is_put_in_order(tmp_path: Path) -> None:
    """Core functions by address, then the modules in the order of the file, each one together."""
    world = read(tmp_path, small())

    assert ["first", "second", "printf", "in_b", "second@2", "in_a"] == names(world)
    assert ("b", "a") == world.modules
    assert [1, 2, 4, 3, 5, None] == [function.btf_id for function in world.functions]


def test_a_duplicate_keeps_its_prototype(tmp_path: Path) -> None:
    """BTF does not name a further symbol, but calls of it still convert their arguments."""
    world = read(tmp_path, small())

    assert world.by_name["second"].prototype is world.by_name["second@2"].prototype is not None


def test_what_btf_does_not_describe_has_no_prototype(tmp_path: Path) -> None:
    """A function without args has neither prototype nor id; a variadic one has a prototype that says so."""
    world = read(tmp_path, small())
    printf = world.by_name["printf"].prototype

    assert (None, None) == (world.by_name["in_a"].prototype, world.by_name["in_a"].btf_id)
    assert printf is not None
    assert (True, False) == (printf.variadic, printf.describable)


def test_one_without_address_stays_behind_its_predecessor(tmp_path: Path) -> None:
    """A record whose symbol has no address keeps its neighbourhood."""
    population = small()
    population["functions"].insert(1, {"name": "weak", "address": None})

    assert ["first", "second", "weak"] == names(read(tmp_path, population))[:3]


def test_compressed_and_plain_files_are_the_same(tmp_path: Path) -> None:
    """Compression is recognised by its first bytes, not by the file's name."""
    path = tmp_path / "compressed.json"
    path.write_bytes(gzip.compress(json.dumps(small()).encode()))

    assert read(tmp_path, small()).functions == populations.read_population(path).functions


@pytest.mark.parametrize(
    ("kernel", "denied", "modifiable"),
    [
        ("5.15", False, False),
        ("6.1.192", False, False),
        ("6.6", False, False),
        ("6.7", True, False),
        ("6.17.3-1-amd64", True, False),
        ("6.18", True, True),
        ("7.0", True, True),
        ("9.9", True, True),
    ],
)
def test_a_users_kernel_has_the_lists_of_its_nearest(
    tmp_path: Path,
    kernel: str,
    denied: bool,
    modifiable: bool,
) -> None:
    """A file from another kernel is read with the facts of the nearest known one."""
    population = small()
    population["kernel"] = kernel
    population["functions"][0]["name"] = population["functions"][4]["name"] = "__rcu_read_lock"
    population["functions"][1]["name"] = "__x64_sys_read"
    world = read(tmp_path, population)

    assert denied == ("deny" in world.by_name["__rcu_read_lock"].attributes)
    assert modifiable == ("fmod_ret" in world.by_name["__x64_sys_read"].attributes)


def test_a_file_may_give_attributes_of_its_own(tmp_path: Path) -> None:
    """They join what the kernel's lists say."""
    population = small()
    population["functions"][0] |= {"name": "security_x", "attributes": ["sleepable", "deny"]}
    population["functions"][4]["name"] = "security_x"

    assert {"sleepable", "deny", "fmod_ret"} == read(tmp_path, population).by_name["security_x"].attributes


FUNCTION_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"name": "no good"}, "functions[0].name: expected a symbol"),
    ({"name": "good\n"}, "functions[0].name: expected a symbol"),
    ({"name": None}, "functions[0].name: expected a string, not null"),
    ({"address": 7}, "functions[0].address: expected a string or null, not an integer"),
    ({"address": "xyz"}, "functions[0].address: expected a string of 1 to 16 hexadecimal digits"),
    ({"btf_id": 0}, "functions[0].btf_id: expected an integer >= 1"),
    ({"btf_id": 1 << 32}, "functions[0].btf_id: expected an integer <= 4294967295"),
    ({"btf_id": True}, "functions[0].btf_id: expected an integer or null, not true or false"),
    ({"btf_id": 1}, "functions[1]: first has btf_id 1, which is second's"),
    ({"args": [4]}, "functions[0]: second has a type beyond the 4 of the file"),
    ({"ret": 4}, "functions[0]: second has a type beyond the 4 of the file"),
    ({"args": [-1]}, "functions[0].args[0]: expected an integer >= 0"),
    ({"args": [True]}, "functions[0].args[0]: expected an integer, not true or false"),
    ({"args": [0] * 65}, "functions[0].args: expected a list of length <= 64"),
    ({"args": None}, "functions[0]: second has only one of args and ret"),
    ({"args": None, "ret": None}, "functions[0]: second has a btf_id but lacks args and ret"),
    ({"ret": "int"}, "functions[0].ret: expected an integer or null, not a string"),
    ({"variadic": 1}, "functions[0].variadic: expected true or false, not an integer"),
    ({"module": "a b"}, "functions[0].module: expected a module's name"),
    ({"attributes": ["denied"]}, "functions[0].attributes[0]: expected one of deny, disabled, empty, fmod_ret"),
    ({"attributes": "deny"}, "functions[0].attributes: expected a list or null, not a string"),
    ({"adress": None}, "functions[0].adress: is no member that is known here"),
]


@pytest.mark.parametrize(("change", "mistake"), FUNCTION_MISTAKES)
def test_a_wrong_function_is_named(tmp_path: Path, change: dict[str, Any], mistake: str) -> None:
    """The sentence names the file, the function by its place, and what is wrong."""
    population = small()
    population["functions"][0] |= change

    with pytest.raises(BadInputError) as caught:
        read(tmp_path, population)

    assert f"{tmp_path / 'population.json'}: {mistake}" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        ([], "types[1]: expected a list of length 3"),
        (["FLOAT", 4, "float"], "types[1][0]: expected one of ENUM, INT, PTR, STRUCT, UNION, VOID"),
        (["INT", 65537, "int"], "types[1][1]: expected an integer <= 65536"),
        (["INT", -1, "int"], "types[1][1]: expected an integer >= 0"),
        (["INT", 4.0, "int"], "types[1][1]: expected an integer, not a float"),
        (["INT", 4, "int\n"], "types[1][2]: expected 1 to 512 printable ASCII characters"),
    ],
)
def test_a_wrong_type_is_named(tmp_path: Path, row: list[Any], mistake: str) -> None:
    """The sentence names the type by its index."""
    population = small()
    population["types"][1] = row

    with pytest.raises(BadInputError) as caught:
        read(tmp_path, population)

    assert mistake in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "population.json:1: is no JSON"),
        ('{"kernel": "6.1",\n "types": [}', "population.json:2: is no JSON"),
        ("[]", "population.json: expected an object, not a list"),
        ("{}", "population.json: kernel: is missing"),
        ('{"kernel": "six"}', "population.json: kernel: expected a kernel's version, MAJOR.MINOR"),
        ('{"kernel": "6.1"}', "population.json: types: is missing"),
        ('{"kernel": "6.1", "types": []}', "population.json: functions: is missing"),
        ('{"kernel": "6.1", "types": [], "functions": [3]}', "functions[0]: expected an object, not an integer"),
        ('{"source": ' + "[" * 100_000, "population.json: is nested too deeply"),
        ('{"kernel": ' + "9" * 5_000, "population.json: kernel: Number out of range"),
    ],
)
def test_a_file_that_is_no_population_is_refused(tmp_path: Path, text: str, mistake: str) -> None:
    """The sentence names the file, and the line where JSON itself is broken."""
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, text)

    assert mistake in str(caught.value)


def test_too_many_functions_are_refused(tmp_path: Path) -> None:
    """A population is bounded in the number of its functions."""
    population = small() | {"functions": [{"name": "f"}] * 1_000_001}

    with pytest.raises(BadInputError, match="functions: expected a list of length <= 1000000"):
        read(tmp_path, population)


def test_a_file_that_explodes_is_refused_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decompression stops at the bound, whatever the file would become."""
    monkeypatch.setattr(populations, "_MOST_BYTES", 1 << 20)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (8 << 20)))

    with pytest.raises(BadInputError, match="bomb.json.gz: is larger than 1048576 bytes"):
        populations.read_population(path)


def test_a_compressed_file_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed file is not even decompressed where it is too large."""
    path = tmp_path / "large.json.gz"
    path.write_bytes(gzip.compress(json.dumps(small()).encode()))
    monkeypatch.setattr(populations, "_MOST_BYTES", 100)
    monkeypatch.setattr(gzip, "GzipFile", None)

    with pytest.raises(BadInputError, match="large.json.gz: is larger than 100 bytes"):
        populations.read_population(path)


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (gzip.compress(b"{}", mtime=0)[:12], "is damaged: it starts like gzip but does not decompress"),
        (b"\x1f\x8b", "is damaged"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b'{"kernel": "\xff"}', "is not UTF-8 text"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, mistake: str) -> None:
    """Damaged bytes are a sentence, not a traceback."""
    path = tmp_path / "damaged"
    path.write_bytes(content)

    with pytest.raises(BadInputError, match=mistake):
        populations.read_population(path)


def test_a_name_that_is_no_population_lists_those_there_are(tmp_path: Path) -> None:
    """A typing error in a name is answered with the names."""
    with pytest.raises(BadInputError, match=r"write one of linux-6\.1, linux-6\.12, linux-7\.3, or the path of a file"):
        populations.load("linux-6.2")

    with pytest.raises(BadInputError, match="cannot be read: Is a directory"):
        populations.read_population(tmp_path)


def test_a_path_is_loaded_like_a_name(tmp_path: Path) -> None:
    """What `--world` takes may be a file; the world is called by its path."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(small()))

    assert str(path) == populations.load(str(path)).name


def test_a_built_in_population_is_read_once() -> None:
    """The second load of a process costs nothing."""
    assert populations.load("linux-6.1") is populations.load("linux-6.1")
