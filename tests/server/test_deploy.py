"""What can be said of the container and the Space without either at hand."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from vitreous.cli_serve import serve

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in lines]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("path", [DEPLOY / "Dockerfile", DEPLOY / "space" / "Dockerfile"], ids=str)
def test_a_container_serves_as_a_user_without_rights(path):
    found = instructions(path)
    names = [name for name, _ in found]
    assert dict(found)["USER"] == "vitreous"
    # Nothing is installed or owned by that user, and nothing runs before it.
    assert names.index("USER") > max(at for at, name in enumerate(names) if name == "RUN")
    installed = shlex.split(next(words for _, words in found if "pip install" in words))
    project = (ROOT / "pyproject.toml").read_text()
    assert f'"{next(word for word in installed if word.startswith("torch"))}"' in project
    for extra in re.findall(r"vitreous\[(.*)\]", " ".join(installed))[0].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
    command = yaml.safe_load(dict(found)["ENTRYPOINT"])
    assert command[:2] == ["vitreous", "serve"]
    serve.make_context("serve", command[2:]).close()  # its options are there


def test_a_space_says_which_port_it_listens_on():
    head = yaml.safe_load((DEPLOY / "space" / "README.md").read_text().split("---")[1])
    command = yaml.safe_load(dict(instructions(DEPLOY / "space" / "Dockerfile"))["ENTRYPOINT"])
    asked = serve.make_context("serve", command[2:]).params
    assert (head["sdk"], head["app_port"]) == ("docker", asked["port"])
    assert asked["allow_frames"] == ("https://huggingface.co",)
