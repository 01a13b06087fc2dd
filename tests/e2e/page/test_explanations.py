"""The page in a real browser: where an answer comes from."""

import re

import pytest
from PIL import Image

from tests.e2e.page.visiting import KEEP_BACK, NEEDS_CHROMIUM, give, words

pytestmark = NEEDS_CHROMIUM


def test_an_explanation_lies_over_the_part_that_is_seen(served, opened, faces, tmp_path):
    face = Image.open(faces / "test" / "happy" / "00000.png").resize((128, 128))
    wide = Image.new("RGB", (256, 128))
    wide.paste(face, (64, 0))
    wide.save(tmp_path / "wide.png")
    page = opened(served)
    give(page, [tmp_path / "wide.png"])
    page.get_by_role("button", name="Explain wide.png").click()
    page.locator(".heat[src]").wait_for()
    page.locator(".why .note", has_text=re.compile("^(angry|happy|sad), by ")).wait_for()
    heat, seen = (page.locator(one).bounding_box() for one in (".heat", ".seen"))
    assert heat["x"] - seen["x"] == pytest.approx(seen["width"] / 4, abs=1)
    assert heat["width"] == pytest.approx(seen["width"] / 2, abs=1)
    assert heat["height"] == pytest.approx(seen["height"], abs=1)
    assert page.locator(".heat").evaluate("image => image.naturalWidth") > 0
    slider = page.get_by_label("Over the picture")
    slider.fill("40")
    assert page.locator(".heat").evaluate("image => image.style.opacity") == "0.4"
    assert page.locator(".seen").evaluate("image => image.style.filter") == "grayscale(40%)"
    with page.expect_response("**/v1/explain?*class_name=sad*"):
        page.get_by_label("What speaks for").select_option("sad")
    with page.expect_response("**/v1/explain?*method=rollout*"):
        page.get_by_label("Method").select_option("rollout")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_overtaken_explanation_is_not_shown(served, opened, pictures, order):
    page = opened(served)
    give(page, pictures[1:2])
    page.get_by_role("button", name="Explain happy.png").click()
    page.locator(".heat[src]").wait_for()
    page.evaluate(KEEP_BACK, "v1/explain")
    for count, name in enumerate(("angry", "sad"), start=1):
        page.get_by_label("What speaks for").select_option(name)
        assert page.evaluate("heldBack", count) == count
    shown_before = page.locator(".heat").get_attribute("src")
    found = []
    for which in order:
        page.evaluate(f"letGo({which})")
        found.append((words(page, ".why .note")[0], page.locator(".heat").get_attribute("src")))
    assert found[1][0].startswith("sad, by ")
    assert found[1][1] != shown_before
    early = found[1] if order[0] == 1 else ("looking …", shown_before)
    assert found[0] == early
