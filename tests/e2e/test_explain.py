"""`vitreous explain`: what a person types, what is drawn, and that no file of theirs is touched."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import vitreous as package
from vitreous.model.presets import preset
from vitreous.model.vit import ViT

METHODS = {"relevance", "integrated", "rollout", "attention"}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_one_picture_is_drawn_and_its_answer_is_predicts(vitreous, run, faces, here):
    picture = faces / "test" / "happy" / "00001.png"
    before = {path: path.read_bytes() for path in faces.rglob("*.png")}
    result = vitreous("explain", run, picture)
    assert result.exit_code == 0, result.stderr
    (answer,) = json.loads(vitreous("predict", run, picture, "--json").stdout)
    first, *methods, file = result.stdout.splitlines()
    assert first == f"{answer['label']}  {answer['probability']:.3f}  {picture}"
    assert methods
    assert all("than random order by 0." in line for line in methods)
    assert {line.split()[0] for line in methods} <= METHODS
    assert file.strip() == "explanations/00001.png"
    with Image.open(here / "explanations" / "00001.png") as image:
        assert image.format == "PNG"
    assert names(here) == {"explanations"}
    assert before == {path: path.read_bytes() for path in faces.rglob("*.png")}


def test_nothing_is_replaced_not_even_in_the_pictures_own_folder(vitreous, run, faces, here):
    source = (faces / "test" / "sad" / "00000.png").read_bytes()
    (here / "photo.png").write_bytes(source)
    for _ in range(2):
        assert vitreous("explain", run, "photo.png", "--out", here, "--quiet").exit_code == 0
    assert names(here) == {"photo.png", "photo-2.png", "photo-3.png"}
    assert (here / "photo.png").read_bytes() == source


def test_json_holds_everything_that_was_measured(vitreous, run, faces, here):
    files = [faces / "test" / "sad" / "00000.png", faces / "test" / "happy" / "00000.png"]
    words = ("--method", "all", "--class", "sad", "--arrays", "--model-pictures", "--json")
    result = vitreous("explain", run, *files, *words)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found) == {"pictures", "checks", "unreadable", "model_pictures"}
    assert set(found["checks"]) == METHODS
    answers = json.loads(vitreous("predict", run, *files, "--json").stdout)
    for each, answer in zip(found["pictures"], answers, strict=True):
        assert each["file"] == answer["file"]
        assert each["label"] == answer["label"]
        assert each["probability"] == pytest.approx(answer["probability"], abs=1e-5)
        assert each["explained"] == "sad"
        assert each["explained_probability"] == pytest.approx(
            answer["probabilities"]["sad"], abs=1e-5
        )
        assert set(each["methods"]) == METHODS
        for measured in each["methods"].values():
            assert measured["gain"] == pytest.approx(
                (measured["insertion"] - measured["deletion"]) / 2
            )
        assert set(each["drawings"]) == {"maps", "attention", "arrays"}
    drawn = [file for each in found["pictures"] for file in each["drawings"].values()]
    drawn += found["model_pictures"].values()
    assert names(here / "explanations") == {Path(file).name for file in drawn}
    assert len(set(drawn)) == 9
    with np.load(found["model_pictures"]["arrays"]) as arrays:
        assert set(arrays) == {"filters", "positions"}
        assert arrays["filters"].shape[1:] == (3, 3, 3)  # of a convolutional stem
        assert arrays["positions"].shape == (8, 8, 8, 8)
    with np.load(found["pictures"][1]["drawings"]["arrays"]) as arrays:
        assert set(arrays) == METHODS | {"picture", "heads"}
        assert arrays["rollout"].shape == (32, 32)


def test_python_gives_the_same_as_arrays(vitreous, run, faces, here):
    picture = faces / "test" / "angry" / "00002.png"
    result = vitreous("explain", run, picture, "--method", "relevance", "--arrays", "--json")
    (told,) = json.loads(result.stdout)["pictures"]
    explained = package.explain(run, str(picture), method="relevance")
    (found,) = explained.pictures
    assert found.to_json() == {key: told[key] for key in told if key != "drawings"}
    with np.load(told["drawings"]["arrays"]) as arrays:
        assert np.array_equal(arrays["relevance"], found.maps["relevance"].values)
    again = found.maps["relevance"].values
    assert np.abs(again).max() == pytest.approx(1)
    found.save(here / "drawn.png")
    assert (here / "drawn.png").stat().st_size > 5_000


def test_a_layer_and_a_head_of_attention(vitreous, run, faces, here):
    picture = faces / "test" / "angry" / "00002.png"
    whole = package.explain(run, picture, method="attention").pictures[0]
    assert whole.attention.shape == (2, 4, 8, 8)
    one = package.explain(run, picture, layer=1, head=3).pictures[0]
    seen = one.maps["attention"].values
    assert not np.allclose(seen, whole.maps["attention"].values, atol=0.05)
    result = vitreous("explain", run, picture, "--layer", "1", "--head", "3")
    assert result.exit_code == 0
    assert names(here / "explanations") == {"00002.png"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--class", "hapy"), "unknown class 'hapy': did you mean 'happy'?"),
        (("--layer", "3"), "layer 3: the model has 2, counted from 1"),
        (("--head", "9"), "head 9: the model has 4"),
        (("--method", "rollout", "--layer", "1"), "not 'rollout'"),
        (("--out", "photo"), "photo is no folder"),
        (("--out", "photo/drawn"), "photo is no folder"),
    ],
)
def test_what_the_model_does_not_have_is_told(vitreous, run, faces, here, words, said):
    (here / "photo").write_bytes(b"a file")
    result = vitreous("explain", run, faces / "test" / "sad" / "00000.png", *words)
    assert result.exit_code == (1 if "--out" in words else 2)
    assert said in " ".join(result.stderr.split())
    assert names(here) == {"photo"}


def test_a_place_that_can_t_be_written_is_told_before_the_work(vitreous, faces, here):
    """Before even the model is opened, which isn't there."""
    (here / "photo").write_bytes(b"a file")
    result = vitreous("explain", "gone", faces / "test" / "sad" / "00000.png", "--out", "photo")
    assert "photo is no folder" in result.stderr


@pytest.mark.skipif(not hasattr(os, "setreuid"), reason="a system with users is missing")
def test_a_folder_without_permission_is_told_before_the_work(vitreous, faces):
    with tempfile.TemporaryDirectory() as folder, nobody():
        Path(folder).chmod(0o755)
        picture = shutil.copy(faces / "test" / "sad" / "00000.png", folder)
        for name, mode in (("open", 0o777), ("closed", 0o555)):
            (Path(folder) / name).mkdir()
            (Path(folder) / name).chmod(mode)
            out = f"{folder}/{name}/drawn"
            result = vitreous("explain", "gone", picture, "--out", out)
            told = f"can't write into {folder}/{name}: no permission" in result.stderr
            assert told == (name == "closed"), result.stderr


@contextmanager
def nobody():
    """Asked for permissions as somebody who may not write everywhere, also where root tests."""
    user = os.getuid()
    if user == 0:
        os.setreuid(65534, -1)
    try:
        yield
    finally:
        os.setreuid(user, -1)


def test_an_unreadable_picture_does_not_stop_the_others(vitreous, run, faces, here):
    (here / "bad.jpg").write_text("no picture")
    good = faces / "test" / "sad" / "00000.png"
    result = vitreous("explain", run, "bad.jpg", good, "--method", "rollout")
    assert result.exit_code == 1
    assert "error: bad.jpg: not a picture" in result.stderr
    assert names(here / "explanations") == {"00000.png"}
    alone = vitreous("explain", run, "bad.jpg", "--json")
    assert alone.exit_code == 1
    assert json.loads(alone.stdout)["unreadable"][0]["file"] == "bad.jpg"


def test_without_pictures_the_model_alone_is_drawn(vitreous, run, here):
    result = vitreous("explain", run, "--model-pictures", "--out", "of/model")
    assert result.exit_code == 0, result.stderr
    assert names(here / "of" / "model") == {"model-filters.png", "model-positions.png"}
    nothing = vitreous("explain", run)
    assert nothing.exit_code == 2
    assert "--model-pictures" in nothing.stderr
    for words in (("--method", "rollout"), ("--layer", "1"), ("--head", "1"), ("--class", "sad")):
        result = vitreous("explain", run, "--model-pictures", *words)
        assert result.exit_code == 2
        assert f"{words[0]}: name PICTURES" in result.stderr


def test_drawings_of_before_are_left_out_of_a_folder_that_is_searched(vitreous, run, faces, here):
    for name in ("happy", "sad"):
        (here / name).mkdir()
        (here / name / "0.png").write_bytes((faces / "test" / name / "00000.png").read_bytes())
    (here / "photo.heic").write_bytes(b"of a telephone")
    words = ("explain", run, ".", "--method", "rollout")
    heic = "photographs in a format that isn't read are left out, 1 in all"
    told = vitreous(*words).stderr
    assert told.count(heic) == 1
    assert "left out: " not in told
    assert names(here / "explanations") == {"0.png", "0-2.png"}
    again = vitreous(*words, "--json")
    assert [each["file"] for each in json.loads(again.stdout)["pictures"]] == [
        "happy/0.png", "sad/0.png",
    ]  # fmt: skip
    assert "left out: 2 pictures in explanations" in again.stderr
    assert again.stderr.count(heic) == 1
    # Whoever names them gets them.
    named = vitreous(
        *words[:2], "explanations/0.png", *words[3:], "--json", "--out", "explanations"
    )
    assert len(json.loads(named.stdout)["pictures"]) == 1
    itself = vitreous(*words[:2], "explanations", *words[3:], "--json", "--out", "explanations")
    assert len(json.loads(itself.stdout)["pictures"]) == 5
    for name in ("happy", "sad"):
        (here / name / "0.png").unlink()
    assert "all pictures in . are in explanations" in vitreous(*words).stderr


@pytest.mark.parametrize(
    "name", [os.fsdecode(b"f\xffce.png"), f"{'很' * 80}.png", f"x{'很' * 83}.png"]
)
def test_whatever_a_picture_is_called(vitreous, run, faces, here, name):
    """Bytes that are no UTF-8 on a strict standard output; names as long as they may be."""
    (here / name).write_bytes((faces / "test" / "sad" / "00000.png").read_bytes())
    words = ("--method", "attention", "--arrays")
    for _ in range(2):
        result = vitreous("explain", run, name, *words)
        assert result.exit_code == 0, result.stderr
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert f"  {shown}\n" in result.stdout
    assert len(names(here / "explanations")) == 6
    assert len({drawn[:3] for drawn in names(here / "explanations")}) == 1
    result = vitreous("predict", run, name)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith(f"  {shown}\n")


def test_a_method_that_fails_is_a_warning_and_not_drawn_unasked(vitreous, faces, here):
    """Nobody has trained this model: its answers hardly depend on any place."""
    model = ViT(replace(preset("Ti/16"), image_size=(32, 32), depth=2, num_classes=3))
    save_file(model.state_dict(), "vit.safetensors")
    Path("names.txt").write_text("angry\nhappy\nsad\n")
    told = ("--labels", "names.txt", "--preprocess", "half")
    picture = faces / "test" / "sad" / "00000.png"
    result = vitreous("explain", "vit.safetensors", picture, *told, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    failed = {name for name, check in found["checks"].items() if not check["passed"]}
    assert failed
    for name in failed:
        assert f"warning: {name} failed its check on this model" in result.stderr
    (each,) = found["pictures"]
    assert each["label"] in ("angry", "happy", "sad")
    assert set(each["methods"]) == (METHODS - failed or {"relevance"})
    every = vitreous("explain", "vit.safetensors", picture, *told, "--method", "all").stdout
    lines = {line.split()[0]: line for line in every.splitlines() if "random order" in line}
    assert {name for name, line in lines.items() if ", failed its check" in line} == failed


def test_the_report_shows_where_mistakes_come_from(run):
    report = (run / "report.html").read_text()
    mistakes = report.count('class="answer"')
    assert mistakes > 0  # of 30 faces, after seconds of training
    assert report.count('alt="Where the answer comes from"') == mistakes
    assert "random order" in report
    assert report.index('id="looks"') > report.index('id="choice"')
    assert report.count('alt="How alike each place') == 1
