"""A run goes out in fewer bits, where that costs no accuracy."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vitreous import export
from vitreous.core.console import Console
from vitreous.exporting import reducing
from vitreous.exporting.precision import reduce_precision


@pytest.fixture(scope="module")
def reduced(vitreous, run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reduced") / "faces-int8.onnx"
    result = vitreous("export", run, "-o", path, "--precision", "int8", "--max-drop", "5")
    assert result.exit_code == 0, result.stderr
    assert "alone right" in result.stdout
    assert "times smaller" in result.stdout
    # The difference that is told with it isn't that of fewer bits.
    assert "in float32 compared with the run on " in result.stderr
    assert result.stdout.endswith(f"{path}\n")
    return path


def test_too_few_pictures_are_a_warning_from_python_too(run, tmp_path, capsys):
    path = tmp_path / "a.onnx"
    quiet = Console(quiet=True)
    assert export(run, path, precision="fp16", max_drop=0.1, console=quiet) == path
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{path} is written all the same: can't tell with so few pictures: 30 of them" in said


def test_it_stands_where_a_run_can(vitreous, run, reduced, faces):
    files = sorted((faces / "test").rglob("*.png"))
    found, wanted = (
        json.loads(vitreous("predict", where, *files, "--json").stdout) for where in (reduced, run)
    )
    apart = [
        abs(one["probabilities"][name] - other["probabilities"][name])
        for one, other in zip(found, wanted, strict=True)
        for name in one["probabilities"]
    ]
    assert 1e-6 < max(apart) < 0.2


def test_json_says_what_it_costs_and_other_pictures_can_be_named(vitreous, run, faces, tmp_path):
    path = tmp_path / "a.onnx"
    result = vitreous("export", run, "-o", path, "--precision", "fp16", "--max-drop", "5",
                      "--data", faces / "test", "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["file"] == str(path)
    assert said["comparison"]["n"] == len(list((faces / "test").rglob("*.png")))
    assert said["loss"]["value"] == 0
    assert said["megabytes"][1] < said["megabytes"][0]
    assert path.exists()


def test_one_that_costs_too_much_is_told_and_not_written(vitreous, run, tmp_path, monkeypatch):
    def spoil(source: Path, path: Path, precision: str, seen: object) -> None:
        reduce_precision(source, path, precision, seen)
        model = onnx.load(path)
        for one in model.graph.initializer:
            value = numpy_helper.to_array(one)
            if value.dtype == np.int8:
                one.CopyFrom(numpy_helper.from_array(np.zeros_like(value), one.name))
        onnx.save(model, path)

    monkeypatch.setattr(reducing, "reduce_precision", spoil)
    result = vitreous("export", run, "-o", tmp_path / "a.onnx", "--precision", "int8")
    assert result.exit_code == 1
    assert "alone right" in result.stdout
    assert "a.onnx is not written: int8 costs too much" in result.stderr
    assert not list(tmp_path.iterdir())


def test_what_makes_no_sense_is_said(vitreous, run, faces, tmp_path):
    weights = tmp_path / "alone.safetensors"
    weights.write_bytes((run / "best.safetensors").read_bytes())
    cases = [
        (
            (weights, "--precision", "int8"),
            "has no pictures at hand to see on what fewer bits cost",
        ),
        ((run, "--precision", "int8", "--to", "torch"), "int8 is there for --to onnx alone"),
        ((run, "--data", faces / "test"), "float32 has all"),
        ((run, "--max-drop", "1"), "float32 has all"),
        ((run, "--precision", "fp16", "--max-drop", "-1"), "points of accuracy, from 0 to 100"),
    ]
    for words, said in cases:
        result = vitreous(
            "export", *words, *([] if "--to" in words else ["-o", tmp_path / "a.onnx"])
        )
        assert result.exit_code == 2, result.stderr
        assert said in result.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["alone.safetensors"]
