"""Reading a page as a parser and as a real browser do."""

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")


class Page(HTMLParser):
    """Checks that elements nest and collects what the tests ask for."""

    VOID = frozenset({"meta", "img", "rect", "line", "circle", "path", "use", "br", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.tags, self.ids, self.loads, self.alts = [], [], [], [], []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.loads += [values[key] for key in ("src", "href", "xlink:href") if key in values]
        self.alts += [values["alt"]] if tag == "img" else []

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@contextmanager
def chromium(*more: str) -> Iterator[Any]:
    """A browser of its own, that asks nobody anything; with more switches, if there are any."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing")
    switches = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    quiet = "--disable-background-networking --disable-component-update"
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=str(CHROMIUM), args=[*switches.split(), *quiet.split(), *more]
        )
        yield browser
        browser.close()


def opened_width(browser: Any, file: Path, width: int) -> int:
    """How wide a page is in a window of a width, in pixels; the console has to stay silent."""
    page = browser.new_page(viewport={"width": width, "height": 740})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(file.as_uri())
    found = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    assert complaints == []
    return found
