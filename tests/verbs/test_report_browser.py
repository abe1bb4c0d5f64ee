"""The HTML report in a browser: it says nothing, asks for nothing, opens at once, and fits phone, desktop and paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from properties.report.writing import write_record
from properties.verbs.report import make
from tests.support.browser import INSTALL, Browser, chromium, started
from tests.support.record_examples import every_record, write_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason=f"chromium is not installed: {INSTALL}"),
]
PICTURES = Path("build/report")
WIDTHS = {"phone": 390, "desktop": 1280}
SECONDS = 1.0

OVERLAPPING = """
(() => {
  const texts = [...document.querySelectorAll('svg text')].filter(e => e.checkVisibility());
  const boxes = texts.map(e => e.getBoundingClientRect());
  const found = [];
  texts.forEach((one, i) => texts.forEach((other, j) => {
    if (i < j && one.ownerSVGElement === other.ownerSVGElement) {
      const a = boxes[i], b = boxes[j];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 2) found.push(one.textContent + ' / ' + other.textContent);
    }
  }));
  return found;
})()
"""
OUTSIDE = """
[...document.querySelectorAll('svg.trampolines text')].filter(text => {
  const box = text.previousElementSibling.tagName === 'rect' ? text.previousElementSibling : text.parentNode;
  return text.checkVisibility() && text.getBoundingClientRect().right > box.getBoundingClientRect().right;
}).map(text => text.textContent)
"""
FOLD = "document.querySelectorAll('details').forEach(each => each.open = true)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("records")
    write_records(directory)
    PICTURES.mkdir(parents=True, exist_ok=True)
    return make(directory)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_as_it_is_seen(width: str, dark: bool, browser: Browser, page: Path) -> None:
    """Nothing is logged or asked for, nothing but tables and code is wider than the window, no text meets another."""
    browser.look(WIDTHS[width], dark=dark)
    browser.open(page)
    for fold in ("", FOLD):
        browser.evaluate(fold)

        assert browser.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
        assert [] == browser.evaluate(OVERLAPPING)
        assert [] == browser.evaluate(OUTSIDE)
        name = f"{width}-{'dark' if dark else 'light'}{'-open' if fold else ''}.png"
        browser.screenshot(PICTURES / name)
        assert (PICTURES / name).read_bytes().startswith(b"\x89PNG")
    assert [] == browser.problems()
    assert [] == browser.requests()


def test_the_schemes_of_colours_differ(browser: Browser, page: Path) -> None:
    """A reader who prefers dark gets light letters on dark."""
    colours = []
    for dark in (False, True):
        browser.look(1280, dark=dark)
        browser.open(page)
        colours.append(browser.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))"))
    (ink, paper), (light_ink, dark_paper) = colours

    assert brightness(ink) + 150 < brightness(paper)
    assert brightness(dark_paper) + 150 < brightness(light_ink)


def brightness(colour: str) -> float:
    """The mean of `rgb(r, g, b)`."""
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3


def test_the_page_is_printed(browser: Browser, page: Path) -> None:
    """As PDF, light whatever the screen is, with what is folded away on the screen."""
    browser.look(1280, dark=True)
    browser.open(page)
    path = PICTURES / "report.pdf"

    assert 100_000 < browser.print(path)
    assert path.read_bytes().startswith(b"%PDF-")


def test_a_hostile_page_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    """Names that are markup show themselves, and do nothing."""
    name = "<script>document.title = 'gone'</script><img src=x onerror=\"document.title = 'gone'\">"
    for file, record in every_record(name).items():
        write_record(record, tmp_path / file)
    browser.look(390, dark=False)
    browser.open(make(tmp_path))

    assert "massattach: fell" == browser.evaluate("document.title")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert [] == browser.problems()
    assert [] == browser.requests()


def test_the_page_opens_at_once(browser: Browser, page: Path) -> None:
    """In less than a second of the processor; the first time the browser takes a process for it."""
    browser.look(1280, dark=False)
    browser.open(page)
    spent = [browser.open(page) for _ in range(3)]

    assert 0 < min(spent)
    assert max(spent) < SECONDS
