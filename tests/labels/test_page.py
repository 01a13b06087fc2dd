import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.pages.reading import CHROMIUM, Page, chromium, opened_width
from vitreous.data.overlay import Change, overlay_text, read_overlay
from vitreous.evaluation.label_errors import find_label_errors
from vitreous.labels.audit import Audit, Suspect
from vitreous.labels.page import SHOWN, render_audit
from vitreous.pages.pictures import picture_at

HOSTILE = "</script><script>alert('x')</script>&\"quoted\""
ROOT = Path("faces").absolute()


def an_audit(count: int = 3, name: str = "a", own: tuple[Change, ...] = ()) -> Audit:
    chances = np.full((6 * count, 3), 0.1, dtype=np.float32)
    labels = np.arange(6 * count) % 3
    answers = np.where(np.arange(6 * count) < count, (labels + 1) % 3, labels)
    chances[np.arange(6 * count), answers] = 0.8
    return Audit(
        run=Path("runs/faces"),
        source=ROOT,
        folder=ROOT,
        classes=("angry", "happy", "sad"),
        errors=find_label_errors(chances, labels),
        suspects=tuple(
            Suspect(ROOT / "sad" / f"{name}{at}.jpg", "sad", "happy", 0.8, 0.1, at + 1)
            for at in range(count)
        ),
        own=own,
    )


def noise(path: Path) -> np.ndarray:
    return np.random.default_rng(len(str(path))).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def test_the_page_is_whole_loads_nothing_and_runs_its_own_script_alone():
    html = render_audit(an_audit(), noise, "audits/faces/overlay.csv")
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert page.tags.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("script") == 1
    assert re.search(r"default-src 'none'; img-src data:;[^\"]*; script-src 'sha256-[^']+'\"", html)
    assert all(link.startswith(("data:image/", "#")) for link in page.loads)
    assert "http://" not in html
    assert "https://" not in html
    assert "3 of 18 labels are worth a look" in page.text
    assert f"vitreous train {ROOT} --overlay audits/faces/overlay.csv" in page.text
    assert page.tags.count("img") == 3
    assert "sad/a0.jpg" in page.text
    assert html == render_audit(an_audit(), noise, "audits/faces/overlay.csv")


def test_nothing_found_is_said_and_nothing_can_be_chosen():
    clean = replace(an_audit(), suspects=())
    page = Page(render_audit(clean, noise, ""))
    assert {"form", "script", "img"}.isdisjoint(page.tags)
    gone = Page(render_audit(an_audit(), picture_at, ""))
    assert "img" not in gone.tags
    assert gone.text.count("can't be read") == 3


def test_thousands_of_suspects_stay_a_page():
    html = render_audit(an_audit(4000), noise, "overlay.csv")
    assert Page(html).tags.count("img") == SHOWN == 500
    assert "and 3,500 more: vitreous audit --json has them all" in Page(html).text
    assert len(html) < 6_000_000


def test_hostile_names_stay_text():
    audit = an_audit(name=HOSTILE)
    odd = replace(audit.suspects[0], file=ROOT / "\udcff.jpg", label=HOSTILE, suggested=HOSTILE)
    hostile = replace(
        audit,
        source=ROOT / HOSTILE,
        classes=(HOSTILE, "happy", "sad"),
        suspects=(odd, *audit.suspects[1:]),
    )
    html = render_audit(hostile, noise, HOSTILE)
    page = Page(html)
    assert page.tags.count("script") == 1
    # What a script couldn't write can't be chosen.
    assert page.tags.count("fieldset") == 2


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing")
def test_it_opens_on_a_phone_and_on_a_desk(tmp_path):
    pages = {
        "some": an_audit(),
        "long": an_audit(20, "never_ending_name_" * 9),
        "hostile": an_audit(2, HOSTILE.replace("/", "-")),
    }
    long = "indistinguishable_from_others" * 3
    pages["classes"] = replace(
        an_audit(), classes=(long, f"{long}2", "sad"),
        suspects=(replace(an_audit().suspects[0], label=long, suggested=f"{long}2"),),
    )  # fmt: skip
    with chromium() as browser:
        for name, audit in pages.items():
            file = tmp_path / f"{name}.html"
            file.write_text(render_audit(audit, noise, "o" * 200), encoding="utf-8")
            for width in (360, 1280):
                assert opened_width(browser, file, width) == width, name


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing")
def test_choices_by_keyboard_become_an_overlay(tmp_path):
    """Tab goes from picture to picture, arrows choose; the file is what `train` reads."""
    comma = 'a, "b"'
    own = (
        Change("happy/other.jpg", "drop", reason="blurred, really"),
        Change(f"sad/{comma}0.jpg", "group", "anna"),
        Change(f"sad/{comma}0.jpg", "relabel", "sad", "looked at"),
        Change(f"sad/{comma}2.jpg", "relabel", "sad", "looked at"),
    )
    # An option without a value gives its text without the spaces at the ends.
    audit = replace(an_audit(4, comma, own), classes=(" angry ", "happy", "sad"))
    file = tmp_path / "index.html"
    file.write_text(render_audit(audit, noise, "overlay.csv"), encoding="utf-8")
    with chromium() as browser:
        page = browser.new_page(accept_downloads=True)
        page.goto(file.as_uri())
        assert page.locator("textarea").input_value() == overlay_text(
            [own[0], own[1], own[2], own[3]]
        )
        assert page.locator("output").inner_text() == "0 of 4 changed"
        page.locator("input[name=choice-1]").first.focus()
        page.keyboard.press("ArrowRight")  # the suggested class
        for _ in range(2):
            page.keyboard.press("Tab")  # past the first's list of other classes
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")  # leave out
        page.locator("select").nth(3).select_option(value=" angry ")
        assert page.locator("output").inner_text() == "3 of 4 changed"
        with page.expect_download() as download:
            page.keyboard.press("Tab")
            page.get_by_role("button").press("Enter")
        download.value.save_as(tmp_path / "overlay.csv")
        page.close()
    saved = read_overlay(tmp_path / "overlay.csv")
    reason = audit.suspects[0].reason
    assert [change for _, change in saved.changes] == [
        own[0],
        own[1],
        Change(f"sad/{comma}0.jpg", "relabel", "happy", reason),
        Change(f"sad/{comma}1.jpg", "drop", "", reason),
        own[3],
        Change(f"sad/{comma}3.jpg", "relabel", " angry ", reason),
    ]
    rows = list(csv.reader(io.StringIO(saved.text)))
    assert rows[0] == ["path", "action", "value", "reason"]


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing")
def test_without_scripts_it_can_be_read(tmp_path):
    file = tmp_path / "index.html"
    file.write_text(render_audit(an_audit(), noise, "overlay.csv"), encoding="utf-8")
    with chromium() as browser:
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(file.as_uri())
        assert page.locator("img").count() == 3
        assert not page.locator("fieldset").first.is_visible()
        assert not page.get_by_role("button").is_visible()
        assert page.get_by_text("Choices on this page take scripts.").is_visible()


def test_the_proposal_leaves_out_suspects_and_keeps_what_was_known_of_others():
    own = (
        Change("sad/./a0.jpg", "relabel", "sad", "looked at"),
        Change("happy/other.jpg", "relabel", "sad"),
        Change("sad/a1.jpg", "group", "anna"),
    )
    audit = an_audit(2, own=own)
    reason = "looks like 'happy' (0.80), not like 'sad' (0.10)"
    assert audit.proposal == [
        own[1],
        Change("sad/a0.jpg", "drop", reason=reason),
        Change("sad/a1.jpg", "drop", reason=reason),
    ]


def test_the_proposal_leaves_out_no_more_than_half_of_a_class():
    """Where nearly all of a class look wrong, the folds are; what was known of them stays."""
    own = (Change("sad/a4.jpg", "group", "anna"),)
    audit = replace(an_audit(5, own=own), errors=an_audit(3).errors)
    assert audit.errors.noise.sum(1).round().tolist() == [6, 6, 6]
    changes = [(change.path, change.action) for change in audit.proposal]
    assert changes == [("sad/a4.jpg", "group"), *((f"sad/a{n}.jpg", "drop") for n in range(3))]


def test_a_label_can_be_chosen_whatever_spaces_are_in_a_name():
    """Such as those of macOS' own screenshots, and of Japanese names."""
    page = Page(render_audit(an_audit(1, name="3.45\u202fPM\u3000\xa0"), noise, "o.csv"))
    assert page.tags.count("select") == 1
    assert Page(render_audit(an_audit(1, name="\udcff"), noise, "o.csv")).tags.count("select") == 0
