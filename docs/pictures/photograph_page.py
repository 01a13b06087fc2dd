"""Photographs the page: python docs/pictures/photograph_page.py RUN.

RUN has learned the drawn faces; those that stand on the page and before its camera are drawn here.
Writes `page.png` and `page-phone.png`. Needs playwright, Chromium and `vitreous[serve]`.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from vitreous.data.faces import EXPRESSIONS, draw_face

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
SIDE = 360


def draw(name: str, at: int) -> Image.Image:
    return Image.fromarray(draw_face(name, SIDE, np.random.default_rng([11, at])))


def pictures(folder: Path) -> list[Path]:
    """A face of each kind, and what is none."""
    files = []
    for at, name in enumerate(EXPRESSIONS):
        files.append(folder / f"portrait-{at + 1}.png")
        draw(name, at).save(files[-1])
    stripes = np.indices((SIDE, SIDE)).sum(0) // 24 % 2 * 255
    files.append(folder / "curtain.png")
    Image.fromarray(np.stack([stripes, stripes // 2, 255 - stripes], 2).astype(np.uint8)).save(
        files[-1]
    )
    return files


def film(path: Path) -> None:
    """What the camera sees: a face that changes twice, as JPEG after JPEG."""
    with path.open("wb") as file:
        for name in (*EXPRESSIONS[::-1], EXPRESSIONS[1]):
            face = draw_face(name, SIDE, np.random.default_rng([11, 4]))
            scene = Image.new("RGB", (640, 480), tuple(map(int, face[4, 4])))
            scene.paste(Image.fromarray(face), (140, 60))
            for _ in range(120):
                scene.save(file, "jpeg", quality=92)


def save(page: Page, name: str, **shot: bool) -> None:
    page.screenshot(path=HERE / name, **shot)
    Image.open(HERE / name).convert("RGB").quantize(256).save(HERE / name, optimize=True)


def desk(browser: Browser, address: str, files: list[Path]) -> None:
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    page.goto(address)
    page.locator("#work").wait_for()
    page.set_input_files("#files", [str(file) for file in files])
    page.locator(".said[aria-busy=false]").nth(len(files) - 1).wait_for()
    page.get_by_role("button", name="Explain portrait-2.png").click()
    page.locator(".heat[src]").wait_for()
    page.wait_for_timeout(500)
    page.evaluate("document.activeElement.blur()")
    save(page, "page.png", full_page=True)
    page.close()


def phone(browser: Browser, address: str) -> None:
    page = browser.new_page(
        viewport={"width": 375, "height": 760},
        color_scheme="dark",
        device_scale_factor=2,
        is_mobile=True,
        has_touch=True,
    )
    page.goto(address)
    page.locator("#work").wait_for()
    page.get_by_role("button", name="Live camera").click()
    page.locator("#camera polyline").nth(2).wait_for()
    page.get_by_label("Size of the frame").fill("75")
    page.wait_for_timeout(24_000)
    page.locator("#camera").evaluate("section => section.scrollIntoView()")
    save(page, "page-phone.png")
    page.close()


def main(run: str) -> None:
    words = [sys.executable, "-m", "vitreous", "serve", run, "--port", "0"]
    with (
        tempfile.TemporaryDirectory() as temporary,
        subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
    ):
        said = iter(server.stderr or ())
        address = next(found[1] for line in said if (found := re.search(r"page: (\S+)", line)))
        film(Path(temporary) / "film.mjpeg")
        fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        camera = f"--use-file-for-fake-video-capture={temporary}/film.mjpeg"
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *fake, camera]
        )
        desk(browser, address, pictures(Path(temporary)))
        phone(browser, address)
        browser.close()
        server.terminate()


if __name__ == "__main__":
    main(sys.argv[1])
