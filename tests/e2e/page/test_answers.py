"""The page in a real browser: pictures in, answers out, whichever engine gives them."""

import base64
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.page.visiting import (
    KEEP_BACK,
    NEEDS_CHROMIUM,
    give,
    predicted,
    serving,
    settled,
    shown,
    violations,
    words,
)

KEY = "a key that nobody can guess"

pytestmark = NEEDS_CHROMIUM


def test_several_pictures_get_the_answers_of_predict(
    address, opened, vitreous, run, pictures, noise
):
    page = opened(address)
    assert page.get_by_role("heading", level=1).inner_text() == "faces"
    give(page, [*pictures, noise])
    wanted = predicted(vitreous, run, [*pictures, noise])
    assert [answer["refused"] for answer in wanted][-1] is True
    assert not all(answer["refused"] for answer in wanted)
    for at, answer in enumerate(wanted):
        card = page.get_by_role("article").nth(at)
        assert card.get_by_role("heading").inner_text() == Path(answer["file"]).name
        said = card.locator(".result").inner_text().replace("\xa0", " ")
        rows = sorted(answer["probabilities"].items(), key=lambda row: -row[1])
        assert words(page, f"li:nth-child({at + 1}) > article .bar-name") == [k for k, _ in rows]
        assert words(page, f"li:nth-child({at + 1}) > article .bar-share") == [
            shown(share) for _, share in rows
        ]
        if answer["refused"]:
            assert said == "none of these"
            assert answer["reason"] in card.inner_text()
            assert card.locator(".set").count() == 0
        else:
            assert said == f"{answer['label']}, {shown(answer['probability'])}"
            assert card.locator(".set").inner_text() == f"90 % set: {', '.join(answer['set'])}"
    # Nobody asks for caution: then there is a class for whatever it is.
    page.get_by_label("none of these").uncheck()
    page.get_by_label("Sets of classes").select_option("")
    page.locator("li:nth-child(4) .result", has_text="%").wait_for()
    settled(page, 4)
    assert page.locator(".set").count() == 0
    (name,) = words(page, "li:nth-child(4) .result")
    assert name.partition(",")[0] == max(wanted[-1]["probabilities"].items(), key=lambda r: r[1])[0]


def test_by_keyboard_alone(address, opened, pictures):
    page = opened(address)
    page.on("filechooser", lambda chooser: chooser.set_files(str(pictures[1])))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Choose pictures"
    page.keyboard.press("Enter")
    settled(page, 1)
    (result,) = words(page, ".result")
    assert words(page, "#status")[0].startswith(f"happy.png: {result}; 90 % set: ")
    reached = []
    for _ in range(40):  # once around: nothing holds the focus back
        page.keyboard.press("Tab")
        place = page.evaluate(
            "[document.activeElement.tagName, document.activeElement.id, "
            "document.activeElement.textContent.slice(0, 40)].join(' ')"
        )
        if place.startswith("BODY"):
            break
        reached.append(place)
        visible = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert visible != "none", place
    else:
        raise AssertionError(reached)
    assert any("Clear history" in place for place in reached)
    assert any(place.startswith("SELECT sets") for place in reached)
    assert any(place.startswith("INPUT refuse") for place in reached)
    has_server = any("Explain" in place for place in reached)
    assert has_server == any("For programs" in place for place in reached)
    if not has_server:
        return
    page.get_by_role("button", name="Explain happy.png").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.locator(".heat[src]").wait_for()
    page.keyboard.press("ArrowDown")  # another class
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert page.locator(".heat").evaluate("image => image.style.opacity") == "0.99"


def test_what_is_no_picture_says_so_and_the_page_goes_on(address, browser, pictures, tmp_path):
    """The browser itself tells its console that a server said 422."""
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    page = browser.new_page()
    page.goto(address)
    page.locator("#work").wait_for()
    give(page, [broken])
    page.get_by_role("article", name="broken.png").locator(".problem").wait_for()
    assert page.locator("#history").is_hidden()
    give(page, pictures[:1], 2)
    assert page.locator(".result").count() == 1
    page.close()


def test_drop_and_paste(address, opened, pictures):
    page = opened(address, permissions=["clipboard-read", "clipboard-write"])
    data = base64.b64encode(pictures[0].read_bytes()).decode()
    page.evaluate(
        """async (data) => {
          const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
          const blob = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        data,
    )
    page.keyboard.press("Control+V")
    settled(page, 1)
    page.evaluate("navigator.clipboard.writeText('no picture')")
    page.keyboard.press("Control+V")
    page.get_by_text("There is no picture on the clipboard.").wait_for()
    dropped = page.evaluate_handle(
        """(data) => {
          const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
          return transfer;
        }""",
        data,
    )
    page.dispatch_event("#drop", "dragenter", {"dataTransfer": dropped})
    assert "over" in page.locator("#drop").get_attribute("class")
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    assert "over" not in page.locator("#drop").get_attribute("class")
    settled(page, 2)
    assert page.get_by_role("article", name="dropped.png").count() == 1
    results = words(page, ".result")
    assert results[0] == results[1]


def test_pictures_that_come_while_others_wait_are_counted_with_them(served, opened, pictures):
    page = opened(served)
    page.evaluate(KEEP_BACK, "/predict")
    page.locator("#files").set_input_files(pictures[:1])
    assert page.evaluate("heldBack", 1) == 1
    page.locator("#files").set_input_files(pictures)
    assert page.evaluate("heldBack", 2) == 2
    for which in range(4):
        assert page.evaluate("heldBack", which + 1) > which
        page.evaluate(f"letGo({which})")
    page.get_by_text("4 pictures classified.").wait_for()
    assert page.evaluate("document.querySelectorAll('.seen').length") == 4


def test_what_can_not_be_read_here_is_not_the_servers_fault(served, opened):
    """A folder that is dropped comes as a file that nobody can read."""
    page = opened(served)
    page.evaluate(
        """() => {
          File.prototype.arrayBuffer = () => Promise.reject(new DOMException("gone"));
          const transfer = new DataTransfer();
          transfer.items.add(new File(["x"], "holiday"));
          const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
          document.body.dispatchEvent(drop);
        }"""
    )
    page.get_by_text("this file can\u2019t be read").first.wait_for()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_overtaken_answer_is_neither_told_nor_kept(served, opened, noise, order):
    page = opened(served)
    page.evaluate(KEEP_BACK, "v1/predict")
    page.set_input_files("#files", str(noise))
    assert page.evaluate("heldBack", 1) == 1
    page.get_by_label("none of these").uncheck()
    assert page.evaluate("heldBack", 2) == 2
    told = page.locator("#status")
    before = told.inner_text()
    for which in order:
        page.evaluate(f"letGo({which})")
        if order == (0, 1) and which == 0:
            assert told.inner_text() == before
    settled(page, 1)
    (result,) = words(page, ".result")
    assert result != "none of these"
    assert words(page, "#status")[0].startswith(f"noise.png: {result}; 90 % set: ")
    page.get_by_text("For your next visit.").wait_for()
    page.reload()
    page.locator("#entries li").first.wait_for()
    assert words(page, "#entries strong") == [result]


def test_history_stays_in_the_browser_until_it_is_cleared(address, opened, pictures):
    page = opened(address)
    give(page, pictures)
    results = words(page, ".result")
    page.get_by_text("For your next visit.").wait_for()
    assert page.locator("#entries li").count() == 0
    page.reload()
    page.locator("#entries li").nth(2).wait_for()
    assert sorted(words(page, "#entries strong")) == sorted(results)
    page.locator("#entries img").first.wait_for()
    width = page.locator("#entries img").first.evaluate("image => image.naturalWidth")
    assert width == Image.open(pictures[0]).width
    page.get_by_role("button", name="Clear history").click()
    page.locator("#history").wait_for(state="hidden")
    page.reload()
    page.locator("#work").wait_for()
    assert page.locator("#history").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1100])
def test_it_fits_reads_and_can_be_used_by_everybody(
    address, opened, pictures, noise, width, scheme
):
    phone = {"has_touch": True, "is_mobile": True} if width < 500 else {}
    size = {"width": width, "height": 800}
    page = opened(address, viewport=size, color_scheme=scheme, reduced_motion="reduce", **phone)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", colour))) < 60) == (scheme == "dark")
    assert page.get_by_role("button", name="Take a photograph").is_visible() == bool(phone)
    assert violations(page) == []
    give(page, [*pictures, noise])
    explain = page.get_by_role("button", name="Explain happy.png")
    if explain.count():
        explain.click()
        page.locator(".heat[src]").wait_for()
    if page.locator("#card").is_visible():
        page.get_by_text("Model card").click()
        assert (
            "classifier of pictures into 3 classes" in page.get_by_label("Model card").inner_text()
        )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert violations(page) == []
    page.reload()
    page.get_by_role("button", name="Live camera").click()
    page.locator("#camera polyline").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert violations(page) == []


def test_a_server_with_a_key_asks_for_it(run, browser, pictures):
    """A wrong key is asked for again; the browser itself tells its console of each 401."""
    with serving(run, "--name", "Our faces", VITREOUS_API_KEY=KEY) as address:
        page = browser.new_page()
        page.goto(address)
        field = page.get_by_label("API key")
        for key in ("another", KEY):
            field.wait_for()
            field.fill(key)
            page.keyboard.press("Enter")
        page.locator("#work").wait_for()
        assert page.get_by_role("heading", level=1).inner_text() == "Our faces"
        give(page, pictures[:1])
        assert page.locator(".result").count() == 1
        page.close()
