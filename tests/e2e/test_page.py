"""The page in a real browser: sent by a server, and as a folder that classifies by itself."""

import base64
import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.pages.reading import CHROMIUM, chromium
from vitreous.exporting.web import SUMS, VERSION, runtime_folder

RUNTIME = runtime_folder()  # asked before the tests get a cache folder of their own
NO_RUNTIME = f"onnxruntime-web {VERSION} is missing in {RUNTIME}: make runtime"
PATIENCE_MS = 60_000
KEY = "a key that nobody can guess"

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing")


@contextmanager
def serving(run: Path, *options: str, **environment: str) -> Iterator[str]:
    """`vitreous serve` as a person starts it, on a free port; its page's address."""
    words = [sys.executable, "-m", "vitreous", "serve", str(run), "--port", "0", *options]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as server:
        try:
            assert server.stderr
            said = ""
            while not (found := re.search(r"page: (\S+)", said)):
                line = server.stderr.readline()
                assert line, said
                said += line
            yield found[1]
        finally:
            server.terminate()


@contextmanager
def hosting(folder: Path) -> Iterator[str]:
    """A plain host of static files."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def served(run) -> Iterator[str]:
    with serving(run) as address:
        yield address


@pytest.fixture(scope="module")
def folder(vitreous, run, tmp_path_factory) -> Path:
    if not all((RUNTIME / name).exists() for name in SUMS):
        pytest.skip(NO_RUNTIME)
    site = tmp_path_factory.mktemp("site") / "faces"
    result = vitreous("export", run, "--to", "web", "-o", site, "--runtime", RUNTIME)
    assert result.exit_code == 0, result.stderr
    assert f"python -m http.server --directory {site}" in result.stderr
    return site


@pytest.fixture(scope="module")
def hosted(folder) -> Iterator[str]:
    with hosting(folder) as address:
        yield address


@pytest.fixture(params=["served", "hosted"])
def address(request) -> str:
    """The same page, whichever engine answers."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def browser():
    fake = "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
    with chromium(*fake.split(), "--host-resolver-rules=MAP faces.test 127.0.0.1") as found:
        yield found


@pytest.fixture
def opened(browser):
    """Opens pages; at the end none may have complained, nor have asked another host."""
    contexts, complaints, asked = [], [], []

    def start(address: str, wait: str = "#work", **settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        context.on("request", lambda request: asked.append((address, request.url)))
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.locator(wait).wait_for()
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []
    for address, url in asked:
        assert url.startswith(("data:", "blob:")) or urlsplit(url)[:2] == urlsplit(address)[:2]


@pytest.fixture(scope="module")
def pictures(faces, tmp_path_factory) -> list[Path]:
    """A face of each class, under names of their own."""
    there = tmp_path_factory.mktemp("pictures")
    for name in ("angry", "happy", "sad"):
        (there / f"{name}.png").write_bytes((faces / "test" / name / "00000.png").read_bytes())
    return sorted(there.iterdir())


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    """A picture like none that the run learned from."""
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


CAUTIOUS = ("--sets", "0.9", "--refuse")


def predicted(vitreous, run: Path, files: list[Path], caution=CAUTIOUS) -> list[dict]:
    result = vitreous("predict", run, *files, *caution, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def give(page, files: list[Path], count: int | None = None) -> None:
    """Choose files, and wait until that many cards have answers."""
    page.set_input_files("#files", [str(file) for file in files])
    settled(page, count or len(files))


def settled(page, count: int) -> None:
    page.locator(".said[aria-busy=false]").nth(count - 1).wait_for()
    assert page.locator(".card.answer").count() == count


def words(page, selector: str) -> list[str]:
    return [text.replace("\xa0", " ") for text in page.locator(selector).all_inner_texts()]


def shown(share: float) -> str:
    if 0.995 < share < 1:
        return "over 99 %"
    return "under 1 %" if 0 < share < 0.005 else f"{int(100 * share + 0.5)} %"


def violations(page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


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


#: Keeps back the camera, and what a server answers to requests of some kind, until `letGo(which)`.
KEEP_BACK = """(kind) => {
  const held = [];
  const wait = () => new Promise((go) => held.push(go));
  window.letGo = (which) => held[which]();
  window.heldBack = async (count) => {
    for (let left = 3000; held.length < count && left; left--) {
      await new Promise((go) => setTimeout(go, 10));
    }
    return held.length;
  };
  const read = Response.prototype.json;
  Response.prototype.json = async function () {
    const found = await read.call(this);
    if (this.url.includes(kind)) await wait();
    return found;
  };
  const devices = navigator.mediaDevices;
  const ask = devices.getUserMedia.bind(devices);
  window.streams = [];
  devices.getUserMedia = async (wish) => {
    const stream = await ask(wish);
    streams.push(stream);
    await wait();
    return stream;
  };
}"""


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


#: Calls the engine that the page itself has, with files as they are.
ASK = """async ([files, options]) => {
  const engine = await import(new URL("page/engine-local.js", document.baseURI));
  const answers = [];
  for (const data of files) {
    const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
    answers.push(await engine.predict(new Blob([bytes]), { name: "x", ...options }));
  }
  return answers;
}"""


def asked(page, files: list[Path], sets: float = 0.9, refuse: bool = True) -> list[dict]:
    data = [base64.b64encode(file.read_bytes()).decode() for file in files]
    return page.evaluate(ASK, [data, {"sets": sets, "refuse": refuse}])


def test_the_browser_computes_what_python_does(hosted, opened, vitreous, run, faces, tmp_path):
    """Of pictures of every size, with sets and refusals; PNG is decoded alike everywhere."""
    rng = np.random.default_rng(0)
    files = sorted((faces / "test").rglob("*.png"))
    sizes = [(1, 1), (1, 300), (300, 2), (31, 33), (500, 400), (64, 2000), (1200, 900)]
    for height, width in sizes:
        files.append(tmp_path / f"{height}x{width}.png")
        face = Image.open(files[0]).resize((width, height))
        grain = rng.normal(0, 12, (height, width, 3))
        Image.fromarray(np.clip(face + grain, 0, 255).astype(np.uint8)).save(files[-1])
    turned = Image.Exif()
    turned[0x0112] = 6
    files.append(tmp_path / "turned.png")
    Image.open(files[1]).save(files[-1], exif=turned)
    for mode in ("L", "P", "1"):
        files.append(tmp_path / f"{mode}.png")
        Image.open(files[2]).convert(mode).save(files[-1])
    page = opened(hosted)
    wanted = predicted(vitreous, run, files)
    assert {answer["refused"] for answer in wanted} == {True, False}
    upright, turned = wanted[1], wanted[len(files) - 4]
    assert turned["probabilities"] != pytest.approx(upright["probabilities"], abs=1e-3)
    check_alike(asked(page, files), wanted)
    # Where nothing is refused, many are in doubt.
    wanted = predicted(vitreous, run, files, ("--sets", "0.99"))
    assert len({len(answer["set"]) for answer in wanted}) > 1
    check_alike(asked(page, files, sets=0.99, refuse=False), wanted)


def check_alike(found: list[dict], wanted: list[dict]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        file, ours = theirs["file"], {**ours, "file": theirs["file"]}
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            alike = pytest.approx(value, abs=1e-4) if key.startswith("probab") else value
            assert ours[key] == alike, f"{file}: {key}"


def test_other_files_are_decoded_nearly_alike(hosted, opened, vitreous, run, faces, tmp_path):
    """A camera's JPEG, which Python decodes smaller, and transparency."""
    face = Image.open(faces / "test" / "happy" / "00001.png")
    face.resize((1600, 1200)).save(tmp_path / "large.jpg", quality=90)
    seen_through = face.convert("RGBA")
    seen_through.putalpha(70)  # over black it would be another picture
    seen_through.save(tmp_path / "through.png")
    files = sorted(tmp_path.iterdir())
    page = opened(hosted)
    for ours, theirs in zip(asked(page, files), predicted(vitreous, run, files), strict=True):
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=0.05)


def test_a_folder_is_whole_and_of_the_same_page(folder, run):
    html = (folder / "index.html").read_text()
    assert "'wasm-unsafe-eval'" in html
    assert 'content="local"' in html
    assert not (folder / "page" / "engine-server.js").exists()
    said = json.loads((folder / "model.json").read_text())
    assert said["name"] == "faces"
    assert said["classes"] == ["angry", "happy", "sad"]
    runtime = folder / "page" / "runtime"
    assert {path.name.replace(".js", ".mjs") for path in runtime.iterdir()} == {
        *SUMS, "LICENSE.txt"
    }  # fmt: skip


def test_a_sealed_file_becomes_a_folder_too(vitreous, folder, tmp_path):
    sealed = tmp_path / "faces.onnx"
    sealed.write_bytes((folder / "model.onnx").read_bytes())
    words = ("export", sealed, "--to", "web", "-o", tmp_path / "site", "--runtime", RUNTIME)
    assert vitreous(*words).exit_code == 0
    assert (tmp_path / "site" / "model.onnx").read_bytes() == sealed.read_bytes()
    again = vitreous(*words)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_another_runtime_is_refused(vitreous, run, tmp_path):
    for name in SUMS:
        (tmp_path / name).write_text("not what it should be")
    words = ("export", run, "--to", "web", "-o", tmp_path / "site", "--runtime", tmp_path)
    result = vitreous(*words)
    assert result.exit_code == 2
    assert f"is not that of onnxruntime-web {VERSION}" in result.stderr
    assert f"npm pack onnxruntime-web@{VERSION}" in result.stderr
    assert not (tmp_path / "site").exists()
