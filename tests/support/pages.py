"""An HTML page read back by Python's own parser: its elements, and whether they are closed as they were opened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

__all__ = ["Element", "parse_page"]

VOID: Final = frozenset({"meta", "link", "br"})


@dataclass(eq=False)
class Element:
    """An element; text: all that stands in it. children: in their order."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> list[Element]:
        """Every element of this tag in it."""
        own = [child for child in self.children if child.tag == tag]
        return own + [found for child in self.children for found in child.all(tag)]

    def child(self, tag: str) -> Element | None:
        """Its first child of this tag."""
        return next((child for child in self.children if child.tag == tag), None)

    def tags(self) -> Counter[str]:
        """How many elements of each tag it has."""
        return sum((child.tags() for child in self.children), Counter([self.tag]))

    def walk(self) -> list[Element]:
        """It, and every element in it."""
        return [self, *(found for child in self.children for found in child.walk())]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), (tag, attrs)
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open[-1].tag, (tag, self.open[-1].tag, self.getpos())
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def parse_page(text: str) -> Element:
    """The page; AssertionError if an element is not closed where it must be."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert 1 == len(reader.open), [element.tag for element in reader.open]
    return reader.open[0]
