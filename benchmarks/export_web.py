"""A sealed file in a real browser against the model it was made of, and how soon it answers.

    python benchmarks/export_web.py CHECKPOINT PICTURES --labels FILE --preprocess half \
        --out benchmarks/results/DATE_export-web

The page, its engine and Chromium are what a visitor has; PICTURES are photographs as JPEG. Arrays
go in as PNG, which every decoder reads alike. Needs playwright, Chromium and onnxruntime-web
(``make runtime``).
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from export import QUIET, Row, answers, by_run, compared, differences, rescaled
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import vitreous
from vitreous.core.files import write_json, write_text
from vitreous.core.machine import processor
from vitreous.data.folder import list_pictures
from vitreous.serving.weights import find_classifier, told_by
from vitreous.training.classifier import load_classifier

CHROMIUM = "/usr/bin/chromium"
SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
#: Times that a fresh browser opens the page.
VISITS = 5

#: Asks the page's own engine about pictures beside it.
ASK = """async (names) => {
  const engine = await import(new URL("page/engine-local.js", document.baseURI));
  const answers = [];
  for (const name of names) {
    const picture = await (await fetch(name)).blob();
    const began = performance.now();
    const { probabilities } = await engine.predict(picture, { name });
    answers.push([performance.now() - began, Object.values(probabilities)]);
  }
  return answers;
}"""


class Silent(SimpleHTTPRequestHandler):
    """A plain host of files."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def hosting(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as host:
        Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()


def ask(page: Page, names: Sequence[str]) -> tuple[np.ndarray, float]:
    """Probabilities, and the median of the milliseconds that a picture takes."""
    found, times = [], []
    for at in range(0, len(names), 50):
        for took, probabilities in page.evaluate(ASK, names[at : at + 50]):
            times.append(took)
            found.append(probabilities)
    return np.array(found, np.float32), statistics.median(times)


def visit(address: str, file: Path) -> Row:
    """A fresh browser: how long until the page is there, and from a choice to its answer.

    The second time is that of a person who needs a second or more to choose a picture; the third
    that of one who has it in hand, and sees it answered as soon as all has been loaded.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        times = {}
        for patient in (True, False):
            page = browser.new_context().new_page()
            began = time.perf_counter()
            page.goto(address)
            page.locator("#work").wait_for()
            shown = time.perf_counter()
            if patient:
                page.wait_for_timeout(3000)
            chosen = time.perf_counter()
            page.set_input_files("#files", str(file))
            page.locator(".result").wait_for()
            answered = time.perf_counter()
            if patient:
                times |= {"page_ms": shown - began, "first_ms": answered - chosen}
            else:
                times["all_ms"] = answered - began
        browser.close()
    return {name: round(1000 * seconds) for name, seconds in times.items()}


def measure(checkpoint: Path, files: list[Path], told: dict[str, Any], folder: Path) -> dict:
    site = vitreous.export(checkpoint, folder / "site", to="web", **told, console=QUIET)
    weights = find_classifier(checkpoint, told_by(num_heads=None, **told), QUIET)
    arrays = rescaled(files)
    pictures = site / "pictures"
    pictures.mkdir()
    for at, array in enumerate(arrays):
        Image.fromarray(array).save(pictures / f"{at:04}.png", compress_level=1)
        (pictures / f"{at:04}.jpg").write_bytes(files[at].read_bytes())
    rows, names = {}, [f"pictures/{at:04}" for at in range(len(files))]
    with hosting(site) as address:
        visits = [visit(address, files[0]) for _ in range(VISITS)]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
            page = browser.new_page()
            page.goto(address)
            page.locator("#work").wait_for()
            found, _ = ask(page, [f"{name}.png" for name in names])
            wanted = by_run(load_classifier(weights), arrays)
            rows["arrays of every size, Chromium"] = compared(wanted, found)
            found, picture_ms = ask(page, [f"{name}.jpg" for name in names])
            wanted = answers(checkpoint, files, **told)
            rows["JPEG files, Chromium"] = compared(wanted, found)
            version = browser.version
            browser.close()
    medians = {name: statistics.median(one[name] for one in visits) for name in visits[0]}
    return {
        "processor": processor(),
        "chromium": version,
        "count": len(files),
        "load": round(os.getloadavg()[2], 1),
        "rows": rows,
        "picture_ms": round(picture_ms, 1),
        **medians,
    }


def page_of(found: dict) -> str:
    lines = [
        "# A sealed file in the browser",
        "",
        "`python benchmarks/export_web.py CHECKPOINT PICTURES --labels FILE --preprocess WORD "
        f"--count {found['count']} --out DIR`: of each picture the "
        "difference of the probability that differs most from the run's.",
        "",
        *differences(found["rows"]),
        "",
        f"Chromium {found['chromium']} on one thread of {found['processor']}, with "
        f"{found['load']} processes at work in the last quarter of an hour, medians: "
        f"{found['picture_ms']} ms a JPEG file; of {VISITS} fresh browsers {found['page_ms']:.0f} "
        f"ms until the page is there, {found['first_ms']:.0f} ms from the first choice to its "
        f"answer three seconds later, {found['all_ms']:.0f} ms from opening the page to an answer "
        "where the picture is chosen at once.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--preprocess", action="append", default=[])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    told = {"labels": arguments.labels, "preprocess": arguments.preprocess}
    files = list_pictures([arguments.pictures])[: arguments.count]
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(arguments.checkpoint, files, told, Path(temporary))
    write_json(arguments.out / "export-web.json", found)
    write_text(arguments.out / "README.md", page_of(found))
    print(page_of(found))


if __name__ == "__main__":
    main()
