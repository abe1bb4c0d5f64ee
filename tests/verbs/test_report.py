"""The HTML report: records in, one page out, that loads nothing and escapes everything; and who writes records."""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from functools import reduce
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from impl.linux.instruments.grace import Waits
from impl.linux.instruments.measure import Measured, Phase
from impl.planted import PLANTED
from properties.__main__ import main
from properties.benchmarks.figures import Figure
from properties.gallery.record import read_gallery
from properties.kernels.cost_rows import Costs, Prediction, Row
from properties.kernels.evidence import Evidence
from properties.kernels.tables import as_json
from properties.report.dividing import Divided
from properties.report.html import page
from properties.report.html.both_sides import compare
from properties.report.html.charts import cost_charts
from properties.report.html.trampolines import ImageDrawing, ImageNode, lay_out
from properties.report.markdown import run_summary
from properties.report.pictures import CalledTarget, CallingFunction, Picture
from properties.report.records import CheckRecord, ChecksRecord, Curve, GalleryRecord, RuleRecord, read_records
from properties.report.results import CheckVerdict
from properties.report.writing import write_record
from properties.runs.units import seeds_agree
from properties.systems.naming import DEFAULT_SYSTEMS
from properties.verbs import bench, checks, verify
from properties.verbs.publishing import publish_run
from properties.verbs.report import make
from spec.documents import defects, rules
from spec.errors import BadInputError
from spec.semantics import PRESETS
from tests.support.pages import Element, parse_page
from tests.support.record_examples import every_record, write_records
from tests.support.record_examples import run as example_run
from tests.support.work_units import Double

MOST_BYTES = page.MOST_BYTES
HOSTILE = """<script>alert(1)</script><img src=x onerror="alert(2)">'"&amp;{{ 7 * 7 }}</title></svg></style>\u202e"""
LOADING = re.compile(r"(?:src|srcset|poster|action|data|xlink:href|background)\s*=|url\(|@import", re.IGNORECASE)


def report(directory: Path) -> Element:
    return parse_page(make(directory).read_text(encoding="utf-8"))


def element_counts(page: Element) -> dict[str, int]:
    """How many elements there are of each tag; of marks there are as many as the words differ in."""
    return {tag: count for tag, count in page.tags().items() if tag != "mark"}


def test_a_report_of_no_records_tells_what_to_run(tmp_path: Path) -> None:
    """What the project knows by itself is there, and each section without a record names the command."""
    shown = report(tmp_path)
    quiet = " ".join(element.text for element in shown.all("p"))

    for command in ("./tox -e verify", "./tox -e bench", "./tox -e linux -- --cost"):
        assert command in quiet
    assert {rule.id for rule in rules()} <= {b.text for b in shown.all("b")}
    assert {defect.id for defect in defects()} <= {b.text for b in shown.all("b")}
    assert {bug.name for bug in PLANTED} <= {b.text for b in shown.all("b")}


def test_every_picture_has_a_text_alternative(tmp_path: Path) -> None:
    """Every svg has the role of an image and a title, and one that is more than a mark tells what it shows."""
    write_records(tmp_path)
    pictures = report(tmp_path).all("svg")

    assert 100 < len(pictures)
    for picture in pictures:
        title, description = picture.child("title"), picture.child("desc")

        assert "img" == picture.attributes["role"]
        assert title is not None
        assert title.text.strip()
        assert picture.attributes.get("class") == "key" or (description is not None and description.text.strip())


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    """No script, no address but places in the page, nothing in the style sheet that would be fetched."""
    write_records(tmp_path)
    shown = report(tmp_path)
    links = {element.attributes["href"] for element in shown.walk() if "href" in element.attributes}

    assert not shown.all("script")
    assert not LOADING.search(re.sub(r">[^<]*<", "><", make(tmp_path).read_text(encoding="utf-8")))
    assert not re.search(r"url\(|@import", shown.all("style")[0].text)
    assert {"data:,"} == {link for link in links if link and not link.startswith("#")}
    ids = [element.attributes["id"] for element in shown.walk() if "id" in element.attributes]
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(ids)
    assert len(ids) == len(set(ids))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Whatever names a record holds, the page has the same elements and attributes as with a harmless one."""
    pages = []
    for number, name in enumerate(("harmless", HOSTILE)):
        directory = tmp_path / str(number)
        directory.mkdir()
        write_records(directory, name)
        pages.append(report(directory))
    harmless, hostile = pages

    assert element_counts(harmless) == element_counts(hostile)
    assert {name for element in hostile.walk() for name in element.attributes} == {
        name for element in harmless.walk() for name in element.attributes
    }
    assert "alert(1)" in hostile.text
    assert "49" not in hostile.all("title")[0].text


def test_what_fell_is_shown_with_both_sides(tmp_path: Path) -> None:
    """A divergence has both sides, their pictures, the rule with its source, and the seed."""
    write_records(tmp_path)
    article = report(tmp_path).all("article")[0]

    assert ["both name ", "both name "] == [pre.text[:10] for pre in article.all("pre")[:2]]
    assert ["a", "b"] == [mark.text for mark in article.all("mark")]
    assert 3 == len(article.all("svg"))
    assert "fell" == article.all("span")[0].text
    assert "divergences" in report(tmp_path).all("nav")[0].text.lower()


def test_the_matrix_and_the_rules_are_tables(tmp_path: Path) -> None:
    """Each cell says its verdict in words, too; a rule stands with each kernel, by a run or by what is on file."""
    write_records(tmp_path)
    shown = report(tmp_path)
    matrix = next(table for table in shown.all("table") if table.attributes.get("class") == "matrix")
    row = next(row for row in shown.all("tr") if row.attributes.get("id") == "rule-LINK-3")

    assert ["proved", "refuted", "undecided"] == [
        re.search(r"[a-z]+", tr.all("td")[0].text)[0] for tr in matrix.all("tr")[1:]
    ]  # type: ignore[index]
    assert ["confirmed", "confirmed", "confirmed674 steps", "never reached"] == [
        cell.text.strip() for cell in row.all("td")[1:]
    ]


def test_the_head_tells_each_run_with_its_verdict(tmp_path: Path) -> None:
    """Runs of checks, the newest figures, and the search for planted bugs; the title has the worst of all."""
    write_records(tmp_path)
    shown = report(tmp_path)
    lines = [line.text.strip() for line in shown.all("ul")[0].all("li")]

    assert ["fell massattach verify name. Checked name."] * 2 == lines[:2]
    assert "fell massattach bench, bench-2. 1 of 2 figures hold." == lines[2]
    assert "fell Planted bugs, power. 1 of 2 were found by every search." == lines[3]
    assert "massattach: fell" == shown.all("title")[0].text


def test_figures_of_several_runs_are_a_course(tmp_path: Path) -> None:
    """One picture for each figure that stands in more than one file; the table shows the newest."""
    write_records(tmp_path)
    shown = report(tmp_path)
    trends = [figure for figure in shown.all("figure") if figure.attributes.get("class") == "trend"]

    assert 2 == len(trends)
    assert "bench-1 150, bench-2 2; the bound is 100" == trends[0].all("desc")[0].text
    assert "bench-2.json" in shown.all("section")[-1].text


DAMAGED = {
    "verify.json": ("{", "verify.json:1: is no JSON: "),
    "linux.json": ('{"rules": {}}', "linux.json: kernels: is missing"),
    "bench-3.json": ('[{"figure": 3}]', "bench-3.json: [0].figure: expected a string, not an integer"),
    "power.json": (
        '{"random_seed": 1, "bugs": [{"bug": "a", "aspect": null, "steps": -1}]}',
        "power.json: bugs[0].steps: ",
    ),
    "plan.json": ("[]", "plan.json: expected an object, not a list"),
    "campaign.json": (
        '{"title": "t", "summary": "s", "checks": [{"name": "n", "verdict": "maybe", "seconds": 1}]}',
        "campaign.json: checks[0].verdict: ",
    ),
}


@pytest.mark.parametrize("file", DAMAGED)
def test_a_damaged_record_is_one_sentence(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the file, and the member; nothing is written, and the status is 2."""
    write_records(tmp_path)
    (tmp_path / file).write_text(DAMAGED[file][0])

    assert 2 == main(["report", str(tmp_path)])
    assert DAMAGED[file][1] in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
    assert not list(tmp_path.glob("*.tmp"))


EMPTY = page.Known((), (), {}, GalleryRecord((), (), (), ()))
ODD = (
    "",
    None,
    0,
    -1,
    10**30,
    1e308,
    5e-324,
    True,
    [],
    {},
    "x" * 9000,
    "\ud800",
    float("nan"),
    [[]],
    "holds",
    "9" * 400,
)


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each member of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inner:
        yield (*before, key)
        yield from places(member, (*before, key))


@pytest.mark.parametrize("file", every_record("name"))
def test_any_damage_is_told_or_shown(file: str, tmp_path: Path) -> None:
    """Whatever stands in the place of a member: one sentence, or a page that is well-formed and not too large."""
    rng = random.Random(file)
    write_records(tmp_path)
    path = tmp_path / file
    whole = path.read_text()
    shown, told = 0, []
    for _ in range(40):
        document = json.loads(whole)
        *way, last = rng.choice(list(places(document)))
        reduce(lambda value, key: value[key], way, document)[last] = rng.choice(ODD)
        path.write_text(json.dumps(document))
        try:
            text = page.make_page(read_records(tmp_path), EMPTY)
        except BadInputError as error:
            told.append(str(error))
        else:
            parse_page(text)
            shown += 1
    assert shown
    assert told
    assert all(sentence.startswith(f"{path}:") for sentence in told)


def test_a_picture_that_calls_what_is_not_there_is_damaged(tmp_path: Path) -> None:
    """A place beyond the end is told, not an exception."""
    write_record(example_run("n"), tmp_path / "verify.json")
    text = (tmp_path / "verify.json").read_text()
    (tmp_path / "verify.json").write_text(text.replace('"callee": 0', '"callee": 77', 1))

    with pytest.raises(BadInputError, match="verify.json: .*a function calls what is not in the picture"):
        read_records(tmp_path)


def test_a_directory_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence says what to give."""
    assert 2 == main(["report", str(tmp_path / "no")])
    assert "is no directory: write the one that verify, linux or bench wrote to" in capsys.readouterr().err


def test_the_verb_tells_where_the_report_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and 0."""
    assert 0 == main(["report", str(tmp_path)])
    assert f"Report: {tmp_path / 'report.html'}\n" == capsys.readouterr().out


def test_the_page_keeps_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of records that are too large less is shown, and how much is left out is said; the page stays well-formed."""
    detail = "a line of detail\n" * 20_000
    fallen = tuple(CheckRecord(f"long {number}", CheckVerdict.FELL, 1.0, detail=detail) for number in range(50))
    write_record(ChecksRecord("huge", "huge", fallen + example_run("n").checks * 100), tmp_path / "verify.json")
    sizes = []
    for most in (MOST_BYTES, 1_000_000):
        monkeypatch.setattr(page, "MOST_BYTES", most)
        text = make(tmp_path).read_text(encoding="utf-8")
        sizes.append(len(text.encode()))

        assert sizes[-1] <= most
        assert re.search(r"and [0-9,]+ more letters", text)
        assert re.search(r"<p class=\"quiet\">and [0-9,]+ more", text)
    assert sizes[1] < sizes[0]
    parse_page(text)


def test_records_that_fit_no_page_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the project itself shows is in every page, so that there is a smallest one."""
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    with pytest.raises(BadInputError, match="the records hold too much for a page of 1,000 bytes"):
        make(tmp_path)

    assert [] == list(tmp_path.iterdir())


def test_verify_publishes_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A divergence found on `batched` comes to the record with pictures of both sides; the summary is appended."""
    bug = next(bug for bug in PLANTED if bug.name == "old-image-put")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    lines = "\n".join(("world synthetic", f"semantics {bug.semantics}", "---", *bug.minimal))
    (seeds / "bug.seed").write_text(f"{lines}\n")
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    divided = Divided("seeds agree", [Double(1)], lambda _: seeds_agree(seeds, DEFAULT_SYSTEMS))
    monkeypatch.setattr(checks, "proofs", list)
    monkeypatch.setattr(checks, "checks", lambda *_: [divided])
    with bug.in_place():
        assert 1 == verify.run(
            argparse.Namespace(
                world=["synthetic"], budget=3.0, junit=tmp_path / "v.xml", jobs=1, scheduler=None, crew=None
            )
        )
    record = read_records(tmp_path)
    assert () == record.runs
    (tmp_path / "v.json").rename(tmp_path / "verify.json")
    ((_, run),) = read_records(tmp_path).runs
    (found,) = run.checks[0].differences

    assert "sites" == found.difference.aspect
    assert found.expected is not None
    assert found.observed is not None
    assert found.before == found.expected
    assert [("fentry:p1", "fexit:p2"), ("fexit:p2",)] == [
        each.callees[0].programs for each in (found.expected, found.observed)
    ]
    assert summary.read_text().startswith("before\n## massattach verify\n")
    assert "| ❌ | seeds agree |" in summary.read_text()


def test_bench_publishes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that go to the current directory are in build, too, with the report."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    monkeypatch.setattr(bench, "measures", lambda: [lambda: Figure("growth", 2.0, 3, "lower", "times")])

    assert 0 == bench.run(argparse.Namespace(json=Path("bench.json"), angr=None))
    assert Path("bench.json").read_bytes() == Path("build/bench.json").read_bytes()
    assert "growth" in parse_page(Path("build/report.html").read_text(encoding="utf-8")).text
    assert "| ✅ | growth | 2 times | ≤ 3 |" in Path("summary.md").read_text()


def test_linux_publishes_what_kernels_confirmed(tmp_path: Path) -> None:
    """What `linux` writes is what the report reads: the rules, the kernels, the costs, and the run itself."""
    counted = {"LINK-3": 5}, {("call", "observed"): 3}, {}, (), (), 1, 2, 3.5
    shown = Evidence("mine", "7.3.4", PRESETS["linux-7.3"], *counted)
    waits = Waits({"rcu_tasks": 2}, {"rcu_tasks": 2}, {"synchronize_rcu_tasks": 2})
    measured = Measured(Phase(0.5, waits), Phase(1.5, waits), frozenset({"vfs_open"}), frozenset(), {})
    row = Row("mine", "one by one", 1, measured, Prediction.nothing())
    document = {**as_json([shown]), "costs": Costs((row,), 2.0).json()}
    log = Console(file=StringIO())
    publish_run("massattach linux", [], tmp_path / "linux.json", log, document=document)
    ((_, record),) = read_records(tmp_path).linux

    assert RuleRecord("confirmed", 5) == record.rules["LINK-3"]["mine"]
    assert ("7.3.4", 3, 3) == (
        record.kernels["mine"].release,
        record.kernels["mine"].steps,
        record.kernels["mine"].calls,
    )
    assert ({"rcu_tasks": 2}, 1.5) == (record.costs[0].attach.waits.waited, record.costs[0].detach.seconds)
    assert "massattach linux" == record.run.title
    assert "7.3.4" in report(tmp_path).text


def test_a_damaged_neighbour_does_not_harm_a_run(tmp_path: Path) -> None:
    """The record is written; that there is no report is told with the reason."""
    (tmp_path / "bench.json").write_text("{}")
    log = StringIO()
    publish_run("massattach verify", [], tmp_path / "verify.json", Console(file=log, width=200))

    assert "There is no new report for a browser: " in log.getvalue()
    assert "bench.json: expected a list, not an object" in log.getvalue()
    assert (tmp_path / "verify.json").is_file()


def test_a_plan_is_written_as_a_record(tmp_path: Path) -> None:
    """Its sets become trampolines: what meets on the same functions is in one."""
    path = tmp_path / "plan.json"

    assert 0 == main(["plan", "--world", "synthetic", "--json", str(path), "fentry:foo*", "fexit:foo1*", "fentry:*r1"])
    ((_, plan),) = read_records(tmp_path).plans
    newest = plan.kernels[-2]
    shown = report(tmp_path)

    assert [("P1", 13), ("P2", 4), ("P3", 1)] == [(probe.name, probe.matched) for probe in plan.probes]
    assert {("P1",): 9, ("P1", "P2"): 4, ("P3",): 1} == {each.probes: each.functions for each in newest.sets}
    assert "TRAMPOLINE2" in " ".join(text.text for text in shown.all("text"))


def test_markdown_is_escaped() -> None:
    """A name can end neither its cell nor its line, nor be markup; a detail cannot end its block."""
    checks = (CheckRecord("a|b\n<i>`x`", CheckVerdict.FELL, 1.0, detail="```\nend"),)
    text = run_summary(ChecksRecord("title", "sentence.", checks))
    row = next(line for line in text.split("\n") if "❌" in line)

    assert 6 == len(re.findall(r"(?<!\\)\|", row))
    assert r"a\|b \<i\>\`x\`" in row
    assert "````\n```\nend\n````" in text


def test_what_differs_is_marked() -> None:
    """The words that one side has alone, escaped."""
    one, other = compare("(1) ops:<o1> foo", "(1) ftrace_caller foo")

    assert "(1) <mark>ops:&lt;o1&gt;</mark> foo" == str(one)
    assert "(1) <mark>ftrace_caller</mark> foo" == str(other)
    assert ("same", "same") == tuple(map(str, compare("same", "same")))


def test_charts_of_a_group_have_the_same_axes() -> None:
    """A decade is as long on each; what is 0 has its place below all."""
    first, second = cost_charts(
        "s", [("a", [Curve("w", ((1, 1.0), (10, 100.0)))]), ("b", [Curve("w", ((1, 0.0), (10, 10.0)))])]
    )
    (low, high), (zero, middle) = (line.points for chart in (first, second) for line in chart.lines)

    assert first.across == second.across
    assert first.down == second.down
    assert "0" == first.down[0].label
    assert pytest.approx(low[1] - middle[1], abs=0.2) == middle[1] - high[1]
    assert zero[1] > low[1]
    assert {0} == {line.number for chart in (first, second) for line in chart.lines}
    assert second.nothing is False
    assert cost_charts("s", [("a", [Curve("w", ((1, 0.0),))])])[0].nothing
    assert [] == cost_charts("s", [])


names = st.text(st.characters(codec="utf-8"), max_size=60)
callees = st.builds(
    CalledTarget,
    names,
    st.sampled_from(["trampoline", "direct", "ops", "caller"]),
    st.lists(st.builds("{}:{}".format, st.sampled_from(["fentry", "fexit", "x"]), names), max_size=60).map(tuple),
    names,
)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    called = draw(st.lists(callees, max_size=6))
    place = st.none() | st.integers(0, len(called) - 1) if called else st.none()
    callers = st.builds(CallingFunction, names, place, place, names, st.integers(1, 50_000))
    return Picture(tuple(draw(st.lists(callers, max_size=50))), tuple(called))


def boxes_apart(drawing: ImageDrawing) -> bool:
    """No two boxes meet, every box is in the drawing, every program in its box."""
    return (
        not any(_meet(one, other) for one, other in combinations(drawing.nodes, 2))
        and all(0 <= n.x and n.x + n.width <= drawing.width + 0.01 for n in drawing.nodes)
        and all(0 <= n.y and n.y + n.height <= drawing.height + 0.01 for n in drawing.nodes)
        and all(c.x + c.width <= n.x + n.width and c.y + 22 <= n.y + n.height for n in drawing.nodes for c in n.chips)
    )


def _meet(one: ImageNode, other: ImageNode) -> bool:
    across = one.x < other.x + other.width and other.x < one.x + one.width
    return across and one.y < other.y + other.height and other.y < one.y + one.height


@given(pictures(), pictures())
def test_boxes_never_overlap(picture: Picture, before: Picture) -> None:
    """Whatever is drawn."""
    assert boxes_apart(lay_out(picture, "any", before))


def test_the_boxes_of_the_gallery_do_not_overlap() -> None:
    """Nor do letters leave their boxes: each is as wide as its longest text needs."""
    gallery = read_gallery()
    shown = [frame.picture for frame in gallery.talk]
    shown += [picture for bug in gallery.planted for picture in (bug.before, bug.expected, bug.observed)]
    for picture in shown:
        drawing = lay_out(picture, "gallery")

        assert boxes_apart(drawing)
        assert all(len(node.text) * 7.3 + 10 <= node.width for node in drawing.nodes)
