"""Glob patterns: how filter_parse_regex() and glob_match() read a pattern, and which records a world selects by it."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable

import pytest

from spec.globs import (
    FilterLine,
    Pattern,
    _translate,
    filter_line,
    is_glob,
    libbpf_matcher,
    link_pattern,
    matcher,
    module_matcher,
    names_command,
    record_index,
    without_bang,
)
from spec.worlds import Function, World, synthetic


def glob_match(pattern: str, name: str) -> bool:
    """What lib/glob.c says, without the short cuts that matcher() takes."""
    return _translate(pattern)(name)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("foo", ("foo", False)), ("!foo*", ("foo*", True)), ("!!x", ("!x", True)), ("!", ("", True)), ("", ("", False))],
)
def test_a_leading_bang_asks_for_removal(pattern: str, expected: tuple[str, bool]) -> None:
    """GLOB-1: one ! is taken off, and only from the front."""
    assert expected == without_bang(pattern)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*", ["", "a", "vfs_read"], []),
        ("**", ["", "a"], []),
        ("vfs_*", ["vfs_", "vfs_read"], ["do_vfs_read", "vfs"]),
        ("*_read", ["_read", "vfs_read"], ["vfs_reads", "read"]),
        ("*fs_r*", ["vfs_read", "fs_r"], ["vfs_write"]),
        ("vfs_read", ["vfs_read"], ["vfs_readv", "kvfs_read", ""]),
        ("v*_r*d", ["vfs_read", "v_rd"], ["vfs_write", "vfs_ready"]),
        ("vfs_rea?", ["vfs_read"], ["vfs_rea", "vfs_readv"]),
        ("*[rw]*", ["vfs_read", "w"], ["vfs_lseek"]),
        (r"\*", ["*"], ["", "a", r"\*"]),
        (r"a\?*", ["a?", "a?b"], ["ab", r"a\?"]),
    ],
)
def test_a_pattern_is_a_head_a_tail_a_middle_a_name_or_a_glob(
    pattern: str,
    matching: list[str],
    others: list[str],
) -> None:
    """GLOB-2: the forms that have no other metacharacters mean what glob_match() would say as well."""
    assert matching == [name for name in matching + others if matcher(pattern)(name)]
    assert matching == [name for name in matching + others if glob_match(pattern, name)]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("[abc]", "b", True),
        ("[!abc]", "b", False),
        ("[!abc]", "d", True),
        ("[^abc]", "d", False),
        ("[^abc]", "^", True),
        ("[a-c]x", "bx", True),
        ("[a-c]x", "dx", False),
        ("[c-a]", "b", False),
        ("[]]", "]", True),
        ("[!]]", "]", False),
        ("[!]]", "a", True),
        ("[a-]", "-", True),
        ("[-a]", "-", True),
        ("[a", "[a", True),
        ("[a", "a", False),
        ("x[", "x[", True),
        ("[!", "[!", True),
        ("[!b-a]", "z", True),
        (r"\[a]", "[a]", True),
        (r"[\]", "\\", True),
        ("a\\", "a\\", True),
        ("?", "", False),
        ("*?", "a", True),
        ("a*b*c", "aXbYbZc", True),
        ("a*b*c", "acb", False),
        ("a.c", "abc", False),
        ("a\nb", "a\nb", True),
        ("a?b", "a\nb", True),
    ],
)
def test_glob_match_reads_classes_ranges_and_backslashes(pattern: str, name: str, expected: bool) -> None:
    """GLOB-3: ! inverts and ^ does not, an unclosed bracket is literal, nothing else is special."""
    assert expected == glob_match(pattern, name)


def test_glob_match_agrees_with_fnmatch_where_both_read_a_pattern_alike() -> None:
    """GLOB-3: without backslashes, 20,000 random patterns match the names that another implementation says."""
    rng = random.Random(2)
    for _ in range(20_000):
        pattern = "".join(rng.choices("abc*?[]!-^", weights=(6, 6, 3, 4, 3, 4, 4, 2, 2, 1), k=rng.randrange(8)))
        name = "".join(rng.choices("abc-]^[!", weights=(6, 6, 3, 1, 1, 1, 1, 1), k=rng.randrange(6)))

        assert fnmatch.fnmatchcase(name, pattern) == glob_match(pattern, name), (pattern, name)


def test_the_forms_of_a_pattern_agree_with_glob_match() -> None:
    """GLOB-2: telling heads, tails and middles apart is a short cut and never changes what is matched."""
    rng = random.Random(3)
    for _ in range(20_000):
        pattern = "".join(rng.choices("ab*?[]\\", weights=(6, 6, 6, 1, 1, 1, 1), k=rng.randrange(6)))
        name = "".join(rng.choices("ab*]", weights=(6, 6, 1, 1), k=rng.randrange(6)))

        assert glob_match(pattern, name) == matcher(pattern)(name), (pattern, name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("foo*", True), ("f?o", True), ("[f]oo", True), ("foo", False), ("foo\\o", False), ("foo@2", False)],
)
def test_a_glob_is_told_from_a_name_by_its_metacharacters(name: str, expected: bool) -> None:
    """LINK-6: a FUNC with one of * ? [ may stand for several functions."""
    assert expected == is_glob(name)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        *[("5", 5), ("0", 0), ("12", 12), ("010", 8), ("0x10", 16), ("0XaF", 175), ("00", 0)],
        *[("5*", 0), ("5x", 0), ("08", 0), ("0x", 0), ("0xg", 0), ("1_0", 0), ("5\n", 0)],
        *[("x5", None), ("", None), ("-1", None), ("+1", None), ("٥", None), ("²", None)],
    ],
)
def test_a_pattern_that_starts_with_a_digit_is_a_record_number(pattern: str, expected: int | None) -> None:
    """GLOB-4: counted from 1, in base 0; what starts with a digit but is no number is no record either."""
    assert expected == record_index(pattern)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("5", 5), ("5*", 5), ("12abc", 12), ("018", 1), ("08", 0), ("0x", 0), ("0x1g", 1), ("x5", None), ("", None)],
)
def test_a_lenient_number_ends_where_its_digits_do(pattern: str, expected: int | None) -> None:
    """GLOB-4: simple_strtoul() passes over what follows."""
    assert expected == record_index(pattern, lenient=True)


def test_a_number_may_be_very_long() -> None:
    """GLOB-4: beyond a word it is no record's, but modulo 2^64 where it is read leniently."""
    world = synthetic()

    assert [] == selected(world, "9" * 5000)
    assert [] == selected(world, str((1 << 64) + 2))
    assert world.matching("2") == world.matching(str((1 << 64) + 2), lenient_index=True)


def selected(world: World, pattern: str, modules: frozenset[str] | None = None) -> list[str]:
    return [function.name for function in world.matching(pattern, modules)]


def test_a_record_number_counts_loaded_functions_in_address_order() -> None:
    """GLOB-4: the first record is 1, and modules that are not loaded do not count."""
    world = synthetic()
    last = len(world.functions)

    assert ["foo0"] == selected(world, "1")
    assert ["bar12"] == selected(world, str(last))
    assert [] == selected(world, str(last), frozenset())
    assert [] == selected(world, str(last + 1))
    assert [] == selected(world, "0")
    assert [] == selected(world, "1*")


def test_a_record_number_counts_disabled_records() -> None:
    """GLOB-4, FILTER-11: a number counts them and selects them, a symbol does not."""
    weak = Function("weak", None, None, attributes=frozenset({"disabled"}))
    world = World("w", (Function("first", None, None), weak, Function("last", None, None)))

    assert ["weak"] == selected(world, "2")
    assert ["last"] == selected(world, "3")
    assert ["first", "last"] == selected(world, "*")
    assert [] == selected(world, "weak")


def test_a_pattern_selects_all_sites_of_a_duplicated_symbol() -> None:
    """GLOB-5: patterns know symbols, so a further symbol of a name is selected with the first."""
    world = World("w", tuple(Function(name, None, None) for name in ("show", "show@2", "shown")))

    assert ["show", "show@2"] == selected(world, "show")
    assert ["show", "show@2", "shown"] == selected(world, "show*")
    assert [] == selected(world, "show@2")


def test_functions_of_unloaded_modules_do_not_match() -> None:
    """A pattern meets what is loaded; without a set of modules, all of the world."""
    world = synthetic()

    assert ["foo1", "foo10", "foo11", "foo12"] == selected(world, "foo1*", frozenset())
    assert ["bar1"] == selected(world, "bar1")
    assert ["bar1"] == selected(world, "bar1", frozenset({"mod1"}))
    assert [] == selected(world, "bar1", frozenset({"mod2"}))


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("vfs_*", Pattern("", None, "vfs_*")),
        ("ext4:ext4_?", Pattern("", "ext4", "ext4_?")),
        ("x[ab]", Pattern("", None, "x[ab]")),
        ("traceable(vfs_*)", Pattern("traceable", None, "vfs_*")),
        ("traceable(vfs_read)", Pattern("traceable", None, "vfs_read")),
        ("attachable(ext4:*)", Pattern("attachable", "ext4", "*")),
        ("vfs_read", None),
        ("ext4:ext4_sync_file", None),
        ("others(vfs_read)", None),
    ],
)
def test_a_function_of_a_link_may_be_a_pattern(text: str, pattern: Pattern | None) -> None:
    """GLOB-6: one word for a way to expand, a module, and a glob."""
    assert pattern == link_pattern(text)


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("*", "", True),
        ("vfs_*", "vfs_read", True),
        ("vfs_*", "xvfs_read", False),
        ("*_r?ad", "vfs_read", True),
        ("*_r?ad", "vfs_rad", False),
        ("x[ab]", "xa", False),
        ("x[ab]", "x[ab]", True),
        ("a\\*", "a*", False),
        ("a.c", "abc", False),
    ],
)
def test_libbpf_knows_stars_and_question_marks_alone(glob: str, name: str, matches: bool) -> None:
    """GLOB-6: no classes, and no backslash."""
    assert matches == libbpf_matcher(glob)(name)


@pytest.mark.parametrize("match", [matcher, libbpf_matcher])
def test_a_glob_of_many_stars_is_decided_at_once(match: Callable[[str], Callable[[str], bool]]) -> None:
    """Nothing is tried again behind a part that was found; what is tried in every way would outlive the reader."""
    assert not match("*?a" * 60 + "*b")("a" * 400)
    assert match("*?a" * 60 + "*b")("a" * 400 + "b")
    assert match("*" * 100_000 + "a")("ba")
    assert not match("[" * 100_000 + "?")("[")


def test_both_kinds_of_globs_are_what_trying_everything_finds() -> None:
    """Stars, question marks and letters at random, against a matcher of four lines."""
    rng = random.Random(3)

    def tried(glob: str, name: str) -> bool:
        if glob.startswith("*"):
            return any(tried(glob[1:], name[at:]) for at in range(len(name) + 1))
        return not name if not glob else name != "" and glob[0] in {"?", name[0]} and tried(glob[1:], name[1:])

    for _ in range(3_000):
        glob = "".join(rng.choices("aab*?", k=rng.randrange(7)))
        name = "".join(rng.choices("aab", k=rng.randrange(7)))
        expected = tried(glob, name)

        assert [expected, expected] == [matcher(glob)(name), libbpf_matcher(glob)(name)], (glob, name)


@pytest.mark.parametrize(
    ("text", "line", "command"),
    [
        ("vfs_*", FilterLine("vfs_*", False, None), False),
        ("!vfs_*:mod:ext4", FilterLine("vfs_*", True, "ext4"), False),
        (":mod:kvm", FilterLine("", False, "kvm"), False),
        ("!:mod:!kvm", FilterLine("", True, "!kvm"), False),
        ("x:mod:", FilterLine("x", False, ""), False),
        ("x:mod:a:mod:b", FilterLine("x", False, "a:mod:b"), False),
        ("x:mod", FilterLine("x:mod", False, None), True),
        ("x:traceon:3", FilterLine("x:traceon:3", False, None), True),
        ("x:traceon:mod:kvm", FilterLine("x:traceon:mod:kvm", False, None), True),
    ],
)
def test_a_line_of_a_filter_file_may_name_a_module(text: str, line: FilterLine, *, command: bool) -> None:
    """GLOB-7, NAME-19: the first colon ends the glob, the second the command."""
    assert line == filter_line(text)
    assert command == names_command(text)


@pytest.mark.parametrize(
    ("module", "matched"),
    [
        ("mod1", ["mod1"]),
        ("mod*", ["mod1", "mod2"]),
        ("!mod1", ["mod2", "8021q", None]),
        ("", ["mod1", "mod2", "8021q"]),
        ("!", [None]),
        ("8021q", []),
        ("!8021q", ["mod1", "mod2", "8021q", None]),
        ("*q", ["8021q"]),
    ],
)
def test_a_line_means_functions_of_these_modules(module: str, matched: list[str | None]) -> None:
    """GLOB-7: None is the kernel itself. A name that starts with a digit is taken for a number, which none has."""
    assert matched == list(filter(module_matcher(module), ["mod1", "mod2", "8021q", None]))


@pytest.mark.parametrize(
    ("module", "awaited"),
    [
        ("kvm", "kvm"),
        ("kvm*", "kvm"),
        ("*kvm*", "*kvm"),
        ("*kvm", "*kvm"),
        ("!kvm*", "!kvm"),
        ("*", "*"),
        ("!*", "!*"),
        ("**", "*"),
        ("k*m*", "k*m*"),
        ("k?m*", "k?m*"),
        ("[k]*", "[k]*"),
        ("\\kvm*", "\\kvm*"),
        ("8021q*", "8021q*"),
        ("", ""),
    ],
)
def test_a_line_waits_for_a_module_without_its_last_star(module: str, awaited: str) -> None:
    """FILTER-12: where filter_parse_regex() takes the pattern for a prefix or a part it writes an end over the star."""
    assert awaited == filter_line(f"x:mod:{module}").awaits
