"""In a notebook the same progress and the report show inline."""

import nbformat
from nbclient import NotebookClient

CELL = """
import vitreous
run = vitreous.train(
    {faces!r}, {out!r}, epochs=2, cache={cache!r},
    settings={{"model": {{"depth": 1, "embed_dim": 16, "num_heads": 1}}}},
)
run
"""


def test_progress_and_report_show_inline(faces, tmp_path):
    names = {name: str(tmp_path / name) for name in ("out", "cache")}
    cell = nbformat.v4.new_code_cell(CELL.format(faces=str(faces), **names))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    result = next(output for output in outputs if output.output_type == "execute_result")
    assert result.data["text/html"].startswith("<iframe srcdoc=")
    shown = [output.data for output in outputs if output.output_type == "display_data"]
    assert any("ViT from scratch" in data.get("text/plain", "") for data in shown)
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown)
