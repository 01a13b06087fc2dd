"""The walkthrough is a notebook that runs from top to bottom and prints what its text says."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

PAGE = Path(__file__).parents[2] / "docs" / "lecture" / "walkthrough.md"
PRINTED = """
256
(1, 256, 256, 3) 22.0 255.0
(1, 16, 16, 768) 768
pictures have the shape (256, 256, 3), but a batch has four axes (batch, height, width, channels): \
add the batch axis with images[None]
(1, 2, 2, 9) [1, 2, 3, 11, 12, 13, 21, 22, 23] [56, 57, 58, 66, 67, 68, 76, 77, 78]
(1, 2, 2, 9) [1, 3, 5, 21, 23, 25, 41, 43, 45] [56, 58, 60, 76, 78, 80, 96, 98, 100]
(1, 15, 16, 768) (1, 16, 16, 768)
True
(290, 290, 3) True
(1, 256, 768)
True
(1, 256, 768)
(2, 3)
[[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
True
True
True
True
(1, 256, 768)
20,077,824 parameters, 18,893,568 of them attention
6144 against 768 for all heads together
2,362,368 parameters
-0.17
0.001 1e-06
True
True 9,444,096 parameters instead of 18,893,568
283,478,787
47,232,899
pos_embed    (256, 768)      196,608
patch_embed  (256, 768)      590,592
blocks.0     (256, 768)   20,077,824
blocks.1     (256, 768)   20,077,824
blocks.2     (256, 768)   20,077,824
blocks.3     (256, 768)   20,077,824
head_mlp.0   (1024,)     201,327,616
head_mlp.1   (1024,)       1,049,600
head         (3,)              3,075
283,478,787 71%
82,940,163
(212, 15)
shape '[32, 256, 768]' is invalid for input of size 1376256
(1, 3) 1.0000
(8, 3) 1.0000
(32, 3) 1.0000
(7, 3) 1.0000
44.40% 44.16%
((0, 1525, 0), (0, 3019, 0), (0, 2255, 0))
accuracy 0.4440, balanced 0.3333
keras_adam 0.001 32
warm-up 0.0 decay 0.0 flip 0.0
largest pixel 255.0
report.html 6 ['angry', 'happy', 'sad']
['angry', 'happy', 'sad'] True
"""
# What the text says, and a line of the above that it stands for.
STATED = {
    "(1, 256, 256, 3)": "(1, 256, 256, 3) ",
    "(1, 16, 16, 768)": "(1, 16, 16, 768) 768",
    "of 250 rows it keeps 240": "(1, 15, 16, 768) ",
    "(1, 256, 768)": "(1, 256, 768)",
    "18,893,568 of\n20,077,824": "20,077,824 parameters, 18,893,568 of them attention",
    "the least it can give is -0.17": "-0.17",
    "283,478,787 and 47,232,899 parameters": "47,232,899",
    "71 % of the large model is one layer": "283,478,787 71%",
    "212 full batches, and a last one of 15": "(212, 15)",
    "44.4 % on its training pictures and\n44.16 %": "44.40% 44.16%",
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walkthrough")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        notebook = jupytext.read(PAGE)
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(
            notebook, timeout=300, resources=resources
        ).execute()  # raises where one fails
    return notebook


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_it_is_a_notebook_for_python():
    notebook = jupytext.read(PAGE)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert not [line for source in code for line in source.splitlines() if len(line) > 100]


def test_no_cell_fails(notebook):
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


def test_every_step_prints_what_it_should(notebook):
    printed = "".join(out.text for out in outputs(notebook) if out.get("name") == "stdout")
    assert printed.splitlines() == PRINTED.strip().splitlines()


@pytest.mark.parametrize("claim", STATED)
def test_the_text_says_what_is_printed(claim):
    assert claim in PAGE.read_text()
    assert any(line.startswith(STATED[claim]) for line in PRINTED.splitlines())


def test_the_faces_and_their_patches_are_shown(notebook):
    shown = [out for out in outputs(notebook) if "image/png" in out.get("data", {})]
    assert len(shown) == 2
