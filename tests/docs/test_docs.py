"""Every code block of the documentation runs, on drawn faces and with little training.

Commands and Python run as they stand, in order, in one folder, except that times and epochs are
cut to one epoch of a tiny model. Blocks of `make` are checked against the Makefile.
"""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from vitreous.cli import _status, cli
from vitreous.data.faces import write_faces
from vitreous.model.presets import preset
from vitreous.model.vit import ViT

ROOT = Path(__file__).parents[2]
LECTURE = ROOT / "docs" / "lecture"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "guide").glob("*.md")),
    LECTURE / "README.md",
    LECTURE / "wall.md",
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TINY = ["--set", "model.depth=1", "--set", "model.embed_dim=16", "--set", "model.num_heads=1"]
TINY_LECTURE = ["--set", "model.head_dim=16", "--set", "model.mlp_dim=16"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_faces(tmp_path / "faces", 6, size=32)
    write_faces(tmp_path / "more", 1, size=32, seed=1)
    shutil.copy(tmp_path / "more" / "happy" / "00000.png", tmp_path / "photo.jpg")
    # timm's names are this library's own, so that a bare model of it is a checkpoint of timm's.
    small = replace(preset("Ti/16"), image_size=(32, 32), depth=1, num_classes=3)
    save_file(ViT(small).state_dict(), tmp_path / "vit.safetensors")
    (tmp_path / "names.txt").write_text("angry\nhappy\nsad\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def serve():
    """Runs a page's server, on a port that is free, until the page ends."""
    servers: list[subprocess.Popen[str]] = []

    def start(words: list[str]) -> str:
        command = [sys.executable, "-m", "vitreous", *words, "--port", "0"]
        servers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        for line in servers[-1].stderr:
            if found := re.search(r"127\.0\.0\.1:\d+", line):
                return found[0]
        raise AssertionError(f"{words} ended with status {servers[-1].wait()}")

    yield start
    for server in servers:
        server.terminate()
        assert server.wait() == 0


def shortened(words: list[str]) -> list[str]:
    """One epoch of a tiny model, whatever the page says about time and size."""
    begins = words[0] in ("train", "pretrain") and "--resume" not in words
    if not begins and not (words[0] == "audit" and "--budget" in words):
        return words
    for option in ("--budget", "--epochs"):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    if "--weights" in words:  # has a model of its own
        return [*words, "--epochs", "1"]
    return [*words, "--epochs", "1", *TINY, *(TINY_LECTURE if "--recipe" in words else [])]


def run_command(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    assert words[0] == "vitreous"
    status = _status(lambda: cli.main(shortened(words[1:]), standalone_mode=False))
    assert status == 0, line


def run_python(code: str, scope: dict, monkeypatch) -> None:
    import vitreous

    def quick(function):
        def shortened_function(source, **options):
            options.pop("budget_s", None)
            settings = {"model": {"depth": 1, "embed_dim": 16, "num_heads": 1}}
            if "weights" in options:  # has a model of its own
                settings = {}
            return function(source, **{**options, "epochs": 1, "settings": settings})

        return shortened_function

    for name in ("train", "pretrain"):
        monkeypatch.setattr(vitreous, name, quick(getattr(vitreous, name)), raising=False)
    exec(compile(code, "page", "exec"), scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_block_of_a_page_runs(page, folder, monkeypatch, serve, timm, transformers):
    blocks = BLOCK.findall(page.read_text())
    assert blocks
    monkeypatch.syspath_prepend(page.parent)  # where a page's own modules lie
    scope: dict = {}  # a page's blocks go on from one another
    address = ""
    for language, text in blocks:
        if language == "bash":
            for line in text.splitlines():
                if line.startswith("vitreous serve "):
                    address = serve(shlex.split(line)[1:])
                else:
                    run_command(line)
        elif language == "python":
            run_python(text.replace("127.0.0.1:8000", address), scope, monkeypatch)
        elif language == "csv":
            (folder / "table.csv").write_text(text)
            names = text.splitlines()[0].split(",")
            assert names == ["path", "label", "split", "group"]
        else:
            assert language == "", f"a block of {language} that nothing runs"


def test_every_make_target_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"^make (\w+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_local_link_leads_somewhere():
    for page in ROOT.rglob("*.md"):
        if any(part.startswith(".") for part in page.relative_to(ROOT).parts):
            continue
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_project_speaks_of_itself_alone():
    """No paths of the machine it was made on."""
    pattern = re.compile(r"(?<![\w.])/(?:work|root|home)/")
    files = [*ROOT.rglob("*.md"), *(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*")]
    for path in files:
        hidden = any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        if path.is_file() and not hidden and path.suffix in (".md", ".py", ".json"):
            assert not pattern.search(path.read_text()), path
