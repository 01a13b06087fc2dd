"""The walkthrough is a notebook that runs from top to bottom and prints what its text says."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

PAGE = Path(__file__).parents[2] / "docs" / "lecture" / "walkthrough.md"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walkthrough")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        notebook = jupytext.read(PAGE)
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=300, resources=resources).execute()
    return notebook


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_every_step_prints_what_the_text_says(notebook):
    assert printed(notebook).splitlines() == [
        "(1, 256, 256, 3) 35.0 255.0",
        "(1, 16, 16, 768) 768",
        "pictures have the shape (256, 256, 3), but a batch has four axes (batch, height, width, "
        "channels): add the batch axis with images[None]",
        "(1, 2, 2, 9)",
        "[[1, 3, 5], [21, 23, 25], [41, 43, 45]]",
        "VALID (1, 15, 16, 768)",
        "SAME (1, 16, 16, 768)",
        "(1, 256, 768) True",
        "(1, 256, 768)",
        "True",
        "True",
        "(1, 256, 768)",
        "20,077,824 parameters, 18,893,568 of them attention",
        "True True",
        "283,478,787 parameters, 201,326,592 of them in the first dense layer behind the flatten",
        "47,232,899 parameters, 25,165,824 of them in the first dense layer behind the flatten",
        "82,940,163",
        "(1, 3) 1.0000",
        "(8, 3) 1.0000",
        "(32, 3) 1.0000",
        "(7, 3) 1.0000",
        "44.40%",
        "44.16%",
        "report.html True",
    ]


def test_the_picture_and_its_patches_are_shown(notebook):
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) == 2
