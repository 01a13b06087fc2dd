"""What can be said of the container and the Space without either at hand."""

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

import vitreous
from vitreous.cli_serve import serve
from vitreous.core.run import RunFolder
from vitreous.evaluation.calibration import CALIBRATION_FILE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE, SPACE = DEPLOY / "Dockerfile", DEPLOY / "space" / "Dockerfile"
PROJECT = (ROOT / "pyproject.toml").read_text()


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in lines]  # pyright: ignore[reportReturnType]


def copied(path: Path) -> dict[str, str]:
    """Where each thing of the context goes to."""
    pairs = {}
    for words in (words for name, words in instructions(path) if name == "COPY"):
        *sources, target = words.split()
        pairs |= dict.fromkeys(sources, target)
    return pairs


@pytest.mark.parametrize("path", [DOCKERFILE, SPACE], ids=str)
def test_a_container_serves_as_a_user_without_rights(path):
    found = instructions(path)
    names = [name for name, _ in found]
    assert dict(found)["USER"] == "vitreous"
    # Nothing is installed or owned by that user, and nothing runs before it.
    last = max(at for at, name in enumerate(names) if name in ("RUN", "COPY", "WORKDIR"))
    assert names.index("USER") > last
    command = yaml.safe_load(dict(found)["ENTRYPOINT"])
    assert command[:2] == ["vitreous", "serve"]
    serve.make_context("serve", command[2:]).close()  # its options are there


@pytest.mark.parametrize("path", [DOCKERFILE, SPACE], ids=str)
def test_what_is_installed_lies_beside_it_and_comes_from_no_index(path):
    installed = [words for name, words in instructions(path) if "pip install" in words]
    torch, itself = (words.split()[-1].strip('"') for words in installed)
    assert f'"{torch}"' in PROJECT
    place, extras = re.fullmatch(r"(.*)\[(.*)\]", itself).groups()  # pyright: ignore[reportOptionalMemberAccess]
    assert place.startswith("/")
    assert place.split("/")[1] in {target.split("/")[1] for target in copied(path).values()}
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE)


def test_what_is_copied_makes_a_whole_wheel(tmp_path):
    """Of the container, from the repository; the run alone is told by whoever builds it."""
    (default,) = (words for name, words in instructions(DOCKERFILE) if name == "ARG")
    ignored = (ROOT / ".dockerignore").read_text().split()
    source = tmp_path / "source"
    source.mkdir()
    for name, target in copied(DOCKERFILE).items():
        if name.startswith("${RUN}/"):
            continue
        assert name.strip("/") not in ignored
        place = tmp_path / target.strip("/")
        if name.endswith("/"):
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(words, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {Path(name) for name in ZipFile(wheel).namelist()}
    package = Path(vitreous.__file__).parent
    kept = (one for one in package.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
    assert {one.relative_to(package.parent) for one in kept} <= inside
    assert default.startswith("RUN=")


def test_of_a_run_a_container_takes_what_it_answers_with():
    """And neither pictures, nor the places of any, nor weights of other trainings."""
    run = RunFolder(Path("run"))
    needed = {run.config.name, run.best.name, CALIBRATION_FILE}
    taken = [name.removeprefix("${RUN}/") for name in copied(DOCKERFILE) if "${RUN}" in name]
    assert len(taken) == len(needed)
    assert all(any(fnmatch(name, pattern) for pattern in taken) for name in needed)
    guide = (ROOT / "docs" / "guide" / "serving.md").read_text()
    (names,) = re.findall(r"^cp runs/faces/\{(.*)\} faces-space/model$", guide, re.MULTILINE)
    assert set(names.split(",")) == needed


def test_the_page_of_a_container_is_called_like_its_run():
    found = dict(instructions(DOCKERFILE))
    assert found["WORKDIR"].endswith("/${RUN}")
    assert copied(DOCKERFILE)["${RUN}/config.toml"] == "./"
    assert yaml.safe_load(found["ENTRYPOINT"])[2] == "."


def test_the_guide_builds_what_is_there():
    guide = (ROOT / "docs" / "guide" / "serving.md").read_text()
    (command,) = re.findall(r"^docker build .*", guide, re.MULTILINE)
    assert command in DOCKERFILE.read_text()
    words = command.split()
    assert (ROOT / words[words.index("-f") + 1]).samefile(DOCKERFILE)
    assert words[-1] == "."


def test_a_space_says_which_port_it_listens_on():
    head = yaml.safe_load((DEPLOY / "space" / "README.md").read_text().split("---")[1])
    command = yaml.safe_load(dict(instructions(SPACE))["ENTRYPOINT"])
    asked = serve.make_context("serve", command[2:]).params
    assert (head["sdk"], head["app_port"]) == ("docker", asked["port"])
    assert head["title"] == asked["name"]
    assert asked["allow_frames"] == ("https://huggingface.co",)
