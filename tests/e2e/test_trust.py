"""Calibrated answers from the command line: sets, none of these, calibrate, compare."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitreous as package
from vitreous.core.files import read_json, read_metadata, read_tensors
from vitreous.data.dataset import read_split_table
from vitreous.data.faces import write_faces

from .conftest import QUICK


@pytest.fixture(scope="module")
def unseen(tmp_path_factory) -> Path:
    """Faces that no run has seen."""
    folder = tmp_path_factory.mktemp("unseen") / "faces"
    write_faces(folder, 60, size=32, seed=7)
    return folder


@pytest.fixture
def calibrated(vitreous, run, unseen, tmp_path) -> Path:
    """A copy of the run, calibrated on faces that were used for nothing else."""
    copy = shutil.copytree(run, tmp_path / "run")
    result = vitreous("calibrate", copy, unseen)
    assert result.exit_code == 0, result.stderr
    assert "sure, by 180 pictures: 0.95 and less" in result.stdout
    assert "keeps at least 97 %" in result.stdout
    return copy


def test_training_leaves_a_temperature_and_a_calibration(run):
    temperature = read_metadata(run / "best.safetensors")["temperature"]
    head, plain = (read_tensors(run / f"{name}.safetensors")[0] for name in ("best", "last"))
    assert temperature > 0
    assert head.keys() == plain.keys()
    score = read_json(run / "evaluation.json")
    assert score["untempered"]["temperature"] == temperature
    assert sum(one["n"] for one in score["reliability"]["bins"]) == score["n"]
    assert (run / "calibration.safetensors").exists()
    page = (run / "report.html").read_text()
    assert "Can its probabilities be trusted?" in page
    assert "a linear classifier of 8x8 pixels" in page


def test_the_temperature_is_the_validation_pictures(vitreous, run):
    """There, no other makes the loss lower than the one that was kept."""
    found = json.loads(vitreous("evaluate", run, "--split", "valid", "--json").stdout)
    assert found["loss"] <= found["untempered"]["loss"] + 1e-3


def test_sets_and_refusing(vitreous, calibrated, faces, tmp_path):
    Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    ).save(tmp_path / "noise.png")  # fmt: skip
    words = ("predict", calibrated, faces / "test", tmp_path / "noise.png")
    result = vitreous(*words, "--sets", "0.9", "--refuse", "--json")
    assert result.exit_code == 0
    promise = (
        "at least 90 % of such pictures, less the 3 % at most that are refused (90 % sure; "
        "calibrated on 180 pictures"
    )
    assert promise in result.stderr
    *answers, noise = json.loads(result.stdout)
    assert noise["refused"]
    assert noise["reason"]
    assert noise["label"] is noise["probability"] is None
    assert noise["set"] == []
    assert sum(noise["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    kept = [answer for answer in answers if not answer["refused"]]
    assert len(kept) >= 25
    held = [Path(answer["file"]).parent.name in answer["set"] for answer in kept]
    assert np.mean(held) >= 0.8
    for answer in kept:
        assert answer["set"][0] == answer["label"]
        chances = [answer["probabilities"][name] for name in answer["set"]]
        assert chances == sorted(chances, reverse=True)
    plain = json.loads(vitreous(*words, "--json").stdout)
    assert all(set(answer) == {"file", "label", "probability", "probabilities"} for answer in plain)
    shown = vitreous(*words, "--sets", "0.9", "--refuse").stdout
    assert f"none of these: {noise['reason']}  {noise['file']}" in shown
    several = next(answer for answer in kept if len(answer["set"]) > 1)
    assert f"{several['set'][0]} or {', '.join(several['set'][1:])}  0." in shown


def test_higher_coverage_takes_larger_sets(calibrated, faces):
    def size(**asked):
        found = package.predict(calibrated, faces / "test", **asked)
        return np.mean([len(answer["set"]) for answer in found])

    sizes = [size(sets=share) for share in (0.3, 0.7, 0.95)]
    assert sizes == sorted(sizes)
    assert 1 <= sizes[0] < sizes[-1]
    assert 1 <= size(sets=0.7, by_class=True) <= 3


def test_without_pictures_of_its_own_there_is_no_promise(vitreous, run, faces):
    result = vitreous("predict", run, faces / "test", "--sets", "0.9", "--refuse")
    assert result.exit_code == 0
    assert result.stderr.count("warning: no promise that") == 2
    assert f"vitreous calibrate {run} DATA" in result.stderr


def test_by_class_is_about_sets(vitreous, run, faces):
    result = vitreous("predict", run, faces / "test", "--by-class")
    assert result.exit_code == 2
    assert "--sets" in result.stderr


def test_pictures_that_the_run_knows_do_not_calibrate_it(vitreous, run, faces):
    before = (run / "calibration.safetensors").read_bytes()
    result = vitreous("calibrate", run, faces, "--split", "valid")
    assert result.exit_code == 2
    assert "has learned from 30 of these 30 pictures or was chosen by them" in result.stderr
    assert (run / "calibration.safetensors").read_bytes() == before


def test_pictures_that_the_run_knows_are_known_by_any_way(vitreous, run, faces, tmp_path):
    (tmp_path / "link").symlink_to(faces)
    (tmp_path / "inside").mkdir()
    for path in sorted((faces / "valid").rglob("*.png")):
        one = tmp_path / "one by one" / path.parent.name / path.name
        one.parent.mkdir(parents=True, exist_ok=True)
        one.symlink_to(path)
    ways = (tmp_path / "link", tmp_path / "inside" / ".." / "link")
    result = vitreous("calibrate", run, tmp_path / "one by one")
    assert result.exit_code == 2
    assert "has learned from 30 of these 30 pictures or was chosen by them" in result.stderr
    for way in ways:
        result = vitreous("calibrate", run, way, "--split", "valid")
        assert result.exit_code == 2
        assert "has learned from 30 of these 30 pictures or was chosen by them" in result.stderr


def test_pictures_that_the_run_knows_are_known_in_another_place(vitreous, run, faces, tmp_path):
    """By their pixels, as the run's folder and the pictures may have gone to another machine."""
    copies = tmp_path / "copied"
    for path in sorted((faces / "train").rglob("*.png")):
        (copies / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copies / path.parent.name / f"{path.stem}.bmp")
    count = len(list(copies.rglob("*.bmp")))
    said = f"{run} has learned from {count} of these {count} pictures or was chosen by them"
    result = vitreous("evaluate", run, copies)
    assert result.exit_code == 0, result.stderr
    assert f"warning: {said}" in " ".join(result.stderr.split())
    result = vitreous("calibrate", run, copies)
    assert result.exit_code == 2
    assert said in result.stderr


def test_weights_without_their_run_say_that_they_know_no_pictures(vitreous, run, faces, tmp_path):
    alone = shutil.copy(run / "best.safetensors", tmp_path / "alone.safetensors")
    said = "which pictures these weights have learned from isn't known here"
    assert said in " ".join(vitreous("evaluate", alone, faces / "test").stderr.split())
    assert said not in " ".join(vitreous("evaluate", run, faces / "test").stderr.split())


def test_what_a_run_began_with_has_learned_too(vitreous, run, faces, tmp_path):
    """With another division, pictures held back were learned by the run that it goes on from."""
    path, source = tmp_path / "on", faces / "train"
    words = (*QUICK, "--epochs", "1", "--init", run, "--set", "data.calibration_share=0.2")
    result = vitreous("train", source, "--out", path, *words)
    assert result.exit_code == 0, result.stderr
    held_out = sum(row["split"] == "valid" for row in read_split_table(path / "split.csv"))
    said = f"of the pictures held back, {run} has learned from {held_out} of these {held_out}"
    assert f"warning: {said}" in result.stderr
    assert said in " ".join((path / "report.html").read_text().split())
    # Those put aside for calibration were put aside too late.
    assert "no promise" in vitreous("predict", path, faces / "test", "--sets", "0.5").stderr
    result = vitreous("calibrate", path, faces, "--split", "valid")
    assert result.exit_code == 2
    assert f"{run}, which {path} goes back to, has learned from 30 of these 30" in result.stderr
    assert "warning" not in vitreous("evaluate", path, faces, "--split", "test", "--json").stderr


def test_a_share_put_aside_in_training(vitreous, faces, unseen, tmp_path):
    path = tmp_path / "aside"
    words = (*QUICK, "--epochs", "1", "--set", "data.calibration_share=0.2")
    result = vitreous("train", unseen, "--out", path, *words)
    assert result.exit_code == 0, result.stderr
    assert "calibration" in result.stderr
    aside = sum(row["split"] == "calibration" for row in read_split_table(path / "split.csv"))
    assert aside == 30  # a fifth of what validation leaves
    result = vitreous("predict", path, faces / "test", "--sets", "0.8")
    assert f"calibrated on {aside} pictures used for nothing else" in result.stderr
    result = vitreous("evaluate", path, "--split", "calibration", "--json")
    assert json.loads(result.stdout)["n"] == aside
    assert tomllib.loads((path / "config.toml").read_text())["data"]["calibration_share"] == 0.2


def test_copies_of_what_was_learned_from_promise_nothing(vitreous, unseen, tmp_path):
    source, path = tmp_path / "faces", tmp_path / "run"
    shutil.copytree(unseen, source / "train")
    write_faces(source / "valid", 20, size=32, seed=8)
    write_faces(source / "calibration", 30, size=32, seed=9)
    for name in ("angry", "happy", "sad"):
        first = min((unseen / name).iterdir())
        shutil.copy(first, source / "calibration" / name / "copy.png")
    result = vitreous("train", source, "--out", path, *QUICK, "--epochs", "1")
    assert result.exit_code == 0, result.stderr
    result = vitreous("predict", path, source / "valid", "--sets", "0.8")
    assert "copies of them were learned from" in result.stderr
    assert "used for nothing else" not in result.stderr


def test_weights_alone_keep_their_probabilities_and_lack_their_calibration(
    vitreous, calibrated, faces, tmp_path
):
    alone = shutil.copy(calibrated / "best.safetensors", tmp_path / "alone.safetensors")
    ways = [vitreous("predict", one, faces / "test", "--json") for one in (calibrated, alone)]
    assert ways[0].stdout == ways[1].stdout
    result = vitreous("predict", alone, faces / "test", "--refuse")
    assert result.exit_code == 2
    assert f"{alone} isn't calibrated" in result.stderr


def test_a_checkpoint_gets_sets_and_can_not_refuse(vitreous, timm, faces, unseen, tmp_path):
    from safetensors.torch import save_file

    model = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=64, depth=1, num_heads=1, num_classes=3
    )
    save_file(dict(model.state_dict()), tmp_path / "vit.safetensors")
    (tmp_path / "names.txt").write_text("angry\nhappy\nsad\n")
    told = ("--labels", tmp_path / "names.txt", "--preprocess", "half")
    result = vitreous("calibrate", tmp_path / "vit.safetensors", unseen, *told)
    assert result.exit_code == 0, result.stderr
    assert "--refuse can't be" in result.stdout
    words = ("predict", tmp_path / "vit.safetensors", faces / "test", *told)
    assert vitreous(*words, "--sets", "0.9").exit_code == 0
    result = vitreous(*words, "--refuse")
    assert result.exit_code == 2
    assert "nobody knows what" in result.stderr


def test_a_score_on_pictures_that_were_learned_comes_with_a_warning(vitreous, run, faces, unseen):
    words = "has learned from 240 of these 240 pictures or was chosen by them"
    scored = vitreous("evaluate", run, faces / "train", "--json")
    assert f"{words}, such as" in scored.stderr
    assert "expect less of it on new ones" in scored.stderr
    assert words in vitreous("compare", run, run, faces / "train").stderr
    for new in (faces / "test", unseen):
        assert "warning" not in vitreous("evaluate", run, new, "--json").stderr
    assert "warning" not in vitreous("evaluate", run, "--json").stderr


def test_compare(vitreous, run, faces, unseen, tmp_path):
    other = tmp_path / "other"
    assert vitreous("train", faces, "--out", other, *QUICK, "--epochs", "1").exit_code == 0
    result = vitreous("compare", other, run, unseen)
    assert result.exit_code == 0, result.stderr
    assert "faces is right on" in result.stdout
    assert result.stdout.rstrip().endswith("better")
    found = json.loads(vitreous("compare", other, run, unseen, "--json").stdout)
    assert found["n"] == 180
    assert found["better"] == "b"
    scores = [
        json.loads(vitreous("evaluate", one, unseen, "--json").stdout) for one in (other, run)
    ]
    for name, score in zip("ab", scores, strict=True):
        for measure in ("accuracy", "balanced_accuracy"):
            assert found[measure][name] == pytest.approx(score[measure])
    again = package.compare(run, run, unseen)
    assert again.better is None
    assert again.only_right == {"a": 0, "b": 0}


def test_compare_needs_classes_that_both_know(vitreous, run, tmp_path):
    write_faces(tmp_path / "faces", {"happy": 2, "sad": 2}, size=32)
    (tmp_path / "faces" / "sad").rename(tmp_path / "faces" / "bored")
    result = vitreous("compare", run, run, tmp_path / "faces")
    assert result.exit_code == 2
    assert "'bored'" in result.stderr
