"""The page as a folder: it classifies by itself, as Python does."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.page.visiting import (
    NEEDS_CHROMIUM,
    RUNTIME,
    give,
    predicted,
)
from vitreous.exporting.web import SUMS, VERSION

pytestmark = NEEDS_CHROMIUM


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


def test_a_model_that_can_not_be_run_is_told_with_each_picture(hosted, browser, pictures):
    """Also where that shows before anything was asked of it."""
    page = browser.new_page()
    held = []
    page.route("**/model.json", lambda route: held.append(route))
    page.context.route("**/runtime/*", lambda route: route.abort())
    page.goto(hosted)
    page.wait_for_timeout(1000)
    held[0].continue_()
    page.locator("#work").wait_for()
    give(page, pictures[:2], 2)
    problems = page.locator(".problem").all_inner_texts()
    assert problems == ["this browser can\u2019t run the model"] * 2
    page.context.unroute_all()
    page.close()


def test_a_page_that_no_server_gives_says_what_it_takes(folder, hosted, browser, opened):
    assert opened(hosted).locator("#late").is_hidden()
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    page.get_by_text("this page takes a web server").wait_for()
    page.close()


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
