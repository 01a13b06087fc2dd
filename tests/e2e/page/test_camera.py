"""The page in a real browser, with a camera that is none."""

from urllib.parse import urlsplit

import pytest

from tests.e2e.page.visiting import KEEP_BACK, NEEDS_CHROMIUM, settled

pytestmark = NEEDS_CHROMIUM


def test_the_camera_classifies_what_is_in_its_frame(address, opened):
    page = opened(address)
    page.get_by_role("button", name="Live camera").click()
    page.locator("#camera .bar").first.wait_for()
    page.locator("#camera polyline").nth(2).wait_for()
    assert page.locator(".legend li").all_inner_texts() != []
    video, guide = (page.locator(one).bounding_box() for one in ("video", ".guide"))
    assert guide["width"] == pytest.approx(guide["height"], abs=1)
    assert guide["height"] == pytest.approx(0.75 * video["height"], abs=1)
    assert guide["x"] - video["x"] == pytest.approx((video["width"] - guide["width"]) / 2, abs=1)
    page.get_by_role("button", name="Keep this picture").click()
    settled(page, 1)
    height = page.locator("video").evaluate("video => video.videoHeight")
    kept = page.locator(".answer .seen").evaluate(
        "image => [image.naturalWidth, image.naturalHeight]"
    )
    assert kept == [round(0.75 * height)] * 2
    stream = page.locator("video").evaluate_handle("video => video.srcObject")
    page.get_by_role("button", name="Close camera").click()
    assert stream.evaluate(
        "stream => stream.getTracks().every((one) => one.readyState === 'ended')"
    )
    assert page.locator("#camera").is_hidden()
    assert page.evaluate("document.activeElement.id") == "live"


def test_the_other_camera_is_another_device(hosted, opened):
    page = opened(hosted)
    page.get_by_role("button", name="Live camera").click()
    page.locator("#camera polyline").first.wait_for()
    shown = "document.querySelector('video').srcObject?.getVideoTracks()[0].getSettings().deviceId"
    first = page.evaluate(shown)
    # Pressed again as soon as its picture is there, long before the second is classified.
    page.evaluate("() => { HTMLMediaElement.prototype.play = () => new Promise(() => {}) }")
    page.get_by_role("button", name="Other camera").click()
    page.wait_for_function(f"(first) => {shown} !== first", arg=first)
    page.get_by_role("button", name="Other camera").click()
    page.wait_for_function(f"(first) => {shown} === first", arg=first)


LIVE = "streams.map((one) => one.getTracks().some((track) => track.readyState === 'live'))"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_camera_that_is_given_late_is_turned_off_again(hosted, opened, order):
    """Closed and opened anew while the browser still asks whether the page may have it."""
    page = opened(hosted)
    page.evaluate(KEEP_BACK, "nothing of a server")
    page.get_by_role("button", name="Live camera").click()
    assert page.evaluate("heldBack", 1) == 1
    page.get_by_role("button", name="Close camera").click()
    page.get_by_role("button", name="Live camera").click()
    assert page.evaluate("heldBack", 2) == 2
    page.get_by_role("button", name="Keep this picture").click()  # there is none yet
    for which in order:
        page.evaluate(f"letGo({which})")
    page.locator("#camera polyline").first.wait_for()
    assert page.evaluate(LIVE) == [False, True]
    assert page.locator("video").evaluate("video => video.srcObject === streams[1]")
    assert page.locator(".card.answer").count() == 0
    page.get_by_role("button", name="Keep this picture").click()
    settled(page, 1)
    page.get_by_role("button", name="Live camera").click()
    assert page.evaluate("heldBack", 3) == 3
    page.get_by_role("button", name="Close camera").click()
    page.evaluate("letGo(2)")
    assert page.evaluate(LIVE) == [False, False, False]
    assert page.locator("#camera").is_hidden()


def test_without_https_it_says_how_to_get_the_camera(hosted, opened):
    port = urlsplit(hosted).port
    page = opened(f"http://faces.test:{port}/")
    page.get_by_role("button", name="Live camera").click()
    page.get_by_text(f"ssh -L {port}:localhost:{port} faces.test").wait_for()
    assert page.locator("video").count() == 0
    page.get_by_role("button", name="Close camera").click()
