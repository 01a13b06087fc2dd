"""Pictures without labels, and what begins with them: what a person types."""

import csv
import json
import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from vitreous.data.faces import write_faces

TINY = ("--set", "model.depth=1", "--set", "model.embed_dim=16", "--set", "model.num_heads=1",
        "--set", "model.stem=[4,8,16]", "--set", "train.batch_size=8")  # fmt: skip


@pytest.fixture(scope="module")
def loose(tmp_path_factory) -> Path:
    """Pictures as they come out of a camera: no classes, a broken one, a text beside them."""
    folder = tmp_path_factory.mktemp("loose")
    for number, path in enumerate(write_faces(folder / "drawn", 12, size=32, seed=7)):
        path.rename(folder / f"{number}.png")
    shutil.rmtree(folder / "drawn")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def pre(vitreous, loose, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "pre"
    before = {file: file.stat().st_mtime_ns for file in loose.iterdir()}
    result = vitreous("pretrain", loose, "--out", path, "--epochs", "3", *TINY)
    assert result.exit_code == 0, result.stderr
    assert {file: file.stat().st_mtime_ns for file in loose.iterdir()} == before
    assert result.stderr.count("cut.png: ") == 1
    assert "34 train, 2 valid" in result.stderr
    assert result.stderr.strip().endswith(f"next: vitreous train FOLDER --init {path}")
    return path


@pytest.fixture
def labelled(tmp_path) -> Path:
    write_faces(tmp_path / "labelled", 8, size=32, seed=3)
    return tmp_path / "labelled"


def refused(result, *words: str) -> None:
    assert result.exit_code == 2, result.stderr
    for word in words:
        assert word in result.stderr.strip().splitlines()[-1]


def test_a_run_without_labels_leaves_what_it_promises(pre):
    assert {path.name for path in pre.iterdir()} >= {
        "best.safetensors", "checkpoints", "config.toml", "evaluation.json", "last.safetensors",
        "metrics.jsonl", "plan.json", "provenance.json", "reconstructions.png", "split.csv",
    }  # fmt: skip
    assert not (pre / "report.html").exists()
    assert set(json.loads((pre / "evaluation.json").read_text())) == {"split", "n", "loss", "step"}
    with Image.open(pre / "reconstructions.png") as image:
        assert image.size == (2 * (4 + 96), 3 * (4 + 96))
    with safe_open(pre / "best.safetensors", framework="np") as file:
        assert not any(name.startswith(("head", "decoder", "encoder")) for name in file.keys())  # noqa: SIM118
        assert set(json.loads(file.metadata()["vitreous"])) == {"model", "preprocess"}
    with (pre / "split.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {""}


def test_training_begins_with_it_and_goes_on_without_it(vitreous, pre, labelled, tmp_path):
    copy, run = tmp_path / "pre", tmp_path / "run"
    shutil.copytree(pre, copy)
    options = ("--epochs", "3", "--set", "train.batch_size=8")
    result = vitreous("train", labelled, "--init", copy, "--out", run, *options)
    assert result.exit_code == 0, result.stderr
    assert f"begun with {copy / 'best.safetensors'} and a new head" in result.stderr
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["init"] == str(copy / "best.safetensors")
    assert (config["model"]["depth"], config["model"]["num_classes"]) == (1, 3)
    plain = vitreous("train", labelled, "--out", tmp_path / "plain", "--epochs", "3", *TINY)
    assert plain.exit_code == 0
    bits = (run / "last.safetensors").read_bytes()
    assert bits != (tmp_path / "plain" / "last.safetensors").read_bytes()
    again = vitreous("train", labelled, "--init", copy, "--out", tmp_path / "again", *options)
    assert again.exit_code == 0
    assert (tmp_path / "again" / "last.safetensors").read_bytes() == bits

    shutil.rmtree(copy)
    for name in ("evaluation.json", "last.safetensors"):
        (run / name).unlink()
    assert vitreous("train", "--resume", run).exit_code == 0
    assert (run / "evaluation.json").exists()
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    (run / "checkpoints" / ".step-000000001.safetensors-x1y2").touch()  # cut off while writing
    (run / "evaluation.json").unlink()
    refused(vitreous("train", "--resume", run), "has no checkpoint yet", "does not exist")


def test_a_trained_run_can_be_begun_with_too(vitreous, run, labelled, tmp_path):
    (labelled / "sad").rename(labelled / "bored")
    out = tmp_path / "out"
    result = vitreous("train", labelled, "--init", run / "last.safetensors", "--out", out,
                      "--epochs", "1", "--set", "model.pool=mean")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    model = tomllib.loads((out / "config.toml").read_text())["model"]
    assert (model["pool"], model["embed_dim"]) == ("mean", 64)


def test_what_is_named_beats_a_file_and_the_file_brings_its_model(
    vitreous, pre, run, labelled, tmp_path
):
    options = ("--epochs", "1", "--set", "train.batch_size=8")
    begun = tmp_path / "begun.toml"
    begun.write_text(f"init = '{pre}'\n")  # a run's folder is as good as its weights file

    def init_of(name: str, *how: object) -> str:
        result = vitreous("train", labelled, "--out", tmp_path / name, *options, *how)
        assert result.exit_code == 0, result.stderr
        return tomllib.loads((tmp_path / name / "config.toml").read_text())["init"]

    assert init_of("a", "--config", begun) == str(pre / "best.safetensors")
    assert init_of("b", "--config", begun, "--init", run) == str(run / "best.safetensors")
    assert init_of("c", "--set", f"init={pre}") == str(pre / "best.safetensors")
    refused(vitreous("train", labelled, "--init", pre, "--weights", "none"), "give one")


def test_a_pretrained_run_can_be_summarised(vitreous, pre):
    result = vitreous("summary", pre, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["tokens"] == 64


def test_only_training_pictures_are_looked_at(vitreous, labelled, tmp_path):
    root = tmp_path / "split"
    shutil.copytree(labelled, root / "train")
    shutil.copytree(labelled, root / "test")
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"")
    result = vitreous("pretrain", root, "--out", tmp_path / "run", "--epochs", "1", *TINY)
    assert result.exit_code == 0, result.stderr
    assert "/test/" not in result.stderr
    assert "/test/" not in (tmp_path / "run" / "split.csv").read_text()


def test_a_finished_run_says_so_whoever_asks(vitreous, pre):
    before = (pre / "last.safetensors").read_bytes()
    for command in ("pretrain", "train"):
        result = vitreous(command, "--resume", pre)
        assert result.exit_code == 0
        assert "is finished, nothing to do." in result.stderr
    (pre / "evaluation.json").unlink()
    assert vitreous("pretrain", "--resume", pre).exit_code == 0
    assert (pre / "evaluation.json").exists()
    assert (pre / "last.safetensors").read_bytes() == before


def test_a_pretrained_run_is_no_trained_one(vitreous, pre, labelled):
    picture = labelled / "sad" / "00000.png"
    for words in (("predict", pre, picture), ("evaluate", pre, labelled), ("evaluate", pre),
                  ("export", pre, "--to", "keras")):  # fmt: skip
        refused(vitreous(*words), "knows no classes yet", "vitreous train FOLDER --init")


def test_mistakes_are_one_line(vitreous, pre, labelled, loose, tmp_path):
    out = ("--out", tmp_path / "run")
    start = ("train", labelled, *out, "--init")
    refused(vitreous(*start, tmp_path / "gone"), "gone does not exist")
    refused(vitreous(*start, labelled), "has none of best.safetensors")
    refused(vitreous(*start, loose / "0.png"), "is no file of weights that is read here")
    refused(vitreous(*start, pre, "--model", "compact-48"), "begins with", "embed_dim 16")
    refused(vitreous(*start, pre, "--set", "model.depth=2"), "model.depth 1, not 2")
    refused(vitreous("train", "--resume", pre, "--init", pre), "--init can't change a run")
    refused(vitreous("train", labelled, *out, "--set", "pretrain.mask_ratio=0.5"),
            "vitreous pretrain")  # fmt: skip
    refused(vitreous("pretrain", loose, *out, "--set", "train.label_smoothing=0.1"), "no effect")
    refused(
        vitreous("pretrain", loose, *out, "--set", "pretrain.mask_rati=0.5"), "mean 'mask_ratio'?"
    )
    refused(vitreous("pretrain", loose, *out, "--budget", "1m", "--epochs", "1"), "exclude")
    refused(vitreous("pretrain", loose, *out, "--set", "pretrain.mask_ratio=1.5"), "mask_ratio")
    refused(vitreous("pretrain"), "name either a SOURCE")
    refused(vitreous("pretrain", loose, "--out", pre), "existing run")
    single = tmp_path / "single"
    single.mkdir()
    refused(vitreous("pretrain", single, *out), "no pictures in")
    shutil.copy(loose / "0.png", single)
    refused(vitreous("pretrain", single, *out), "1 picture(s) that can't be divided")
    assert not (tmp_path / "run").exists()


def test_python_has_the_same(loose, labelled, tmp_path, monkeypatch):
    import vitreous

    table = tmp_path / "table.csv"
    table.write_text("path\n" + "".join(f"{loose / f'{n}.png'}\n" for n in range(20)))
    settings = {"model": {"depth": 1, "embed_dim": 16, "num_heads": 1, "stem": [4, 8, 16]}}
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    pre = vitreous.pretrain(table, epochs=1, settings=settings, cache=cache)
    assert pre.path == Path("runs/table-pretrained")
    assert pre.evaluation["n"] == 1
    assert pre._repr_html_() is None
    run = vitreous.train(labelled, "run", init=pre.path, epochs=1, cache=cache)
    assert run.evaluation["n"] > 0
