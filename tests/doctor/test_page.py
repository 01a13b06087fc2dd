import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.pages.reading import CHROMIUM, Page, chromium, opened_width
from vitreous.data.overlay import Change
from vitreous.doctor.findings import Checkup, Finding
from vitreous.doctor.page import render_checkup, render_findings
from vitreous.pages.pictures import picture_at

HOSTILE = "<script>alert('x')</script>&\"quoted\""


def a_checkup(count: int = 3, name: str = "a") -> Checkup:
    root = Path("faces")
    files = [root / "happy" / f"{name}{number}.jpg" for number in range(count + 1)]
    pairs = itertools.pairwise(files)
    return Checkup(
        source=root,
        folder=root,
        pictures={"train": count, "valid": 2},
        classes=("happy", "sad"),
        findings=(
            *(Finding("leak", pair, "in train and valid: the same pixels", "error")
              for pair in pairs),
            Finding("empty", tuple(files[:1]), "the file is empty", "error"),
            Finding("imbalance", (), "'happy' has more", "note"),
        ),
        proposal=(Change("happy/a0.jpg", "drop"),),
    )  # fmt: skip


def noise(path: Path) -> np.ndarray:
    return np.random.default_rng(len(str(path))).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def test_the_page_is_whole_and_loads_nothing():
    html = render_checkup(a_checkup(), noise, "checks/faces/overlay.csv")
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert page.tags.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags
    assert all(link.startswith(("data:image/", "#")) for link in page.loads)
    assert {link[1:] for link in page.loads if link.startswith("#")} <= set(page.ids)
    assert "http://" not in html
    assert "https://" not in html
    assert "4 errors, 1 note in 5 pictures." in page.text
    assert "vitreous train faces --overlay checks/faces/overlay.csv" in page.text
    # The empty file is named, not shown.
    assert page.tags.count("img") == 2 * 3
    assert html == render_checkup(a_checkup(), noise, "checks/faces/overlay.csv")


def test_thousands_of_findings_stay_a_page():
    checkup = a_checkup(5000)
    asked = Counter()

    def picture_of(path: Path) -> np.ndarray:
        asked[path] += 1
        return noise(path)

    html = render_checkup(checkup, picture_of, "overlay.csv")
    assert asked.total() <= 300
    assert len(html) < 3_000_000
    assert "and 4,700 more: vitreous check --json has them all" in Page(html).text


def test_a_page_of_nothing_and_one_whose_files_are_gone(tmp_path):
    healthy = replace(a_checkup(), findings=(), proposal=())
    assert "Nothing found in 5 pictures." in Page(render_checkup(healthy, noise, "")).text
    gone = Page(render_checkup(a_checkup(), picture_at, "overlay.csv"))
    assert "img" not in gone.tags
    assert "happy/a0.jpg" in gone.text


def test_hostile_names_stay_text():
    root = Path(HOSTILE)
    finding = Finding("duplicate", (root / f"{HOSTILE}\udcff.jpg",), HOSTILE, "warning")
    hostile = replace(
        a_checkup(), source=root, folder=root, pictures={HOSTILE: 1}, findings=(finding,)
    )
    html = render_checkup(hostile, lambda path: None, HOSTILE)
    assert "<script" not in html
    assert "alert" not in "".join(Page(html).ids)
    assert Page(html).text.count("alert('x')") == 3  # and quoted for a shell at the end
    assert "?.jpg" in Page(html.encode("utf-8").decode("utf-8")).text


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing")
def test_it_opens_on_a_phone_and_on_a_desk(tmp_path, sick):
    pages = {
        "sick": render_checkup(sick.checkup, picture_at, "overlay.csv"),
        "long": render_checkup(a_checkup(20, "never_ending_name_" * 9), noise, "o" * 200),
        "healthy": render_checkup(replace(a_checkup(), findings=(), proposal=()), noise, ""),
    }
    with chromium() as browser:
        for name, html in pages.items():
            file = tmp_path / f"{name}.html"
            file.write_text(html, encoding="utf-8")
            for width in (360, 1280):
                assert opened_width(browser, file, width) == width, name


def test_in_short_it_is_a_part_of_another_page():
    part = Page(render_findings(a_checkup(30), noise))
    assert "31 errors, 1 note in 32 pictures." in part.text
    assert "vitreous check faces --out NEW_FOLDER" in part.text
    assert part.tags.count("img") == 2 * 3
    assert "and 27 more" in part.text
    assert not {"h1", "h2", "script", "html"} & set(part.tags)
    healthy = Page(render_findings(replace(a_checkup(), findings=()), noise))
    assert healthy.text.split() == ["Nothing", "found", "in", "5", "pictures."]
    assert "<script>" not in render_findings(a_checkup(name=HOSTILE), noise)
