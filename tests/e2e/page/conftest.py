"""A browser, and the page twice: sent by a server, and as a folder of its own."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.e2e.page.visiting import PATIENCE_MS, RUNTIME, hosting, serving
from tests.pages.reading import chromium
from vitreous.exporting.web import SUMS, VERSION

NO_RUNTIME = f"onnxruntime-web {VERSION} is missing in {RUNTIME}: make runtime"


@pytest.fixture(scope="session")
def served(run) -> Iterator[str]:
    with serving(run) as address:
        yield address


@pytest.fixture(scope="session")
def folder(vitreous, run, tmp_path_factory) -> Path:
    if not all((RUNTIME / name).exists() for name in SUMS):
        pytest.skip(NO_RUNTIME)
    site = tmp_path_factory.mktemp("site") / "faces"
    result = vitreous("export", run, "--to", "web", "-o", site, "--runtime", RUNTIME)
    assert result.exit_code == 0, result.stderr
    assert f"python -m http.server --directory {site}" in result.stderr
    return site


@pytest.fixture(scope="session")
def hosted(folder) -> Iterator[str]:
    with hosting(folder) as address:
        yield address


@pytest.fixture(params=["served", "hosted"])
def address(request) -> str:
    """The same page, whichever engine answers."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def browser():
    fake = "--use-fake-device-for-media-stream=device-count=2 --use-fake-ui-for-media-stream"
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


@pytest.fixture(scope="session")
def pictures(faces, tmp_path_factory) -> list[Path]:
    """A face of each class, under names of their own."""
    there = tmp_path_factory.mktemp("pictures")
    for name in ("angry", "happy", "sad"):
        (there / f"{name}.png").write_bytes((faces / "test" / name / "00000.png").read_bytes())
    return sorted(there.iterdir())


@pytest.fixture(scope="session")
def noise(tmp_path_factory) -> Path:
    """A picture like none that the run learned from."""
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
