"""The lecture's commands as a person types them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def test_patches_draws_the_grid(vitreous, faces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = next(faces.rglob("*.png"))
    before = picture.read_bytes()
    result = vitreous("patches", picture, "--size", 8, "--image-size", 32)
    assert result.exit_code == 0, result.stderr
    drawing = Path(result.stdout.strip())
    assert drawing == Path(f"{picture.stem}-patches.png")
    with Image.open(drawing) as image, Image.open(picture) as original:
        shown, there = np.asarray(image), np.asarray(original.convert("RGB"))
    assert shown.shape == (42, 42, 3)
    assert (shown[2:10, 12:20] == there[:8, 8:16]).all()
    assert picture.read_bytes() == before
    again = vitreous("patches", picture, "--size", 8, "--image-size", 32)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_patches_overlap_or_leave_gaps_as_asked(vitreous, faces, tmp_path):
    picture = next(faces.rglob("*.png"))
    sizes = {
        "overlap": (["--stride", 4], 7 * 10 + 2),
        "gaps": (["--rate", 3], 2 * 10 + 2),
        "same": (["--stride", 5, "--padding", "same"], 7 * 10 + 2),
    }
    for name, (options, side) in sizes.items():
        drawing = tmp_path / f"{name}.png"
        options = ["--size", 8, "--image-size", 32, *options]
        assert vitreous("patches", picture, "--out", drawing, *options).exit_code == 0
        with Image.open(drawing) as image:
            assert image.size == (side, side)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", 0], "above 0"),
        (["--size", 300], "no patch of 300 px"),
        (["--size", 900, "--stride", 100], "choose smaller ones or padding"),
        (["--stride", 1, "--image-size", 2000], "choose a larger stride"),
    ],
)
def test_patches_that_can_not_be_drawn(vitreous, faces, tmp_path, options, words):
    picture = next(faces.rglob("*.png"))
    result = vitreous("patches", picture, "--out", tmp_path / "a.png", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


def test_patches_of_no_picture(vitreous, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for path in (text, tmp_path / "missing.png"):
        result = vitreous("patches", path, "--out", tmp_path / "a.png")
        assert result.exit_code == 2
        assert str(path) in result.stderr


def test_only_a_lecture_model_goes_to_keras(vitreous, run):
    result = vitreous("export", run, "--to", "keras")
    assert result.exit_code == 2
    assert "only the lecture's model" in result.stderr
    assert "--recipe lecture" in result.stderr


def test_an_unknown_recipe(vitreous, faces, tmp_path):
    result = vitreous("train", faces, "--recipe", "lectures", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "lecture" in result.stderr
