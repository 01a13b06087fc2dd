"""Drawings hold what they should, in their places and colours."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.explanation.builds import BUILDS, SMALL, drawn
from vitreous.data.preprocess import Preprocess
from vitreous.explanation.anatomy import patch_filters, position_similarity
from vitreous.explanation.pictures import Question, explain_pictures
from vitreous.explanation.render import (
    draw_explanation,
    draw_filters,
    draw_heads,
    draw_positions,
    overlay,
)
from vitreous.explanation.result import Explanation
from vitreous.training.classifier import Classifier

#: Broken mathematics, a script that the font lacks, a byte that is no text, a line break.
HOSTILE = "$\\frac{ $ 猫 \udcff\n"
GREY = np.full((8, 12, 3), 128, np.uint8)


def explained(build: str, file: str = f"far/away/{HOSTILE}.png") -> Explanation:
    classes = ("a", "b", "an endless name of a class that nothing could ever hold", "d", HOSTILE)
    classifier = Classifier(drawn(BUILDS[build]), Preprocess(SMALL.image_size), classes, None)
    picture = np.random.default_rng(0).integers(0, 256, (*SMALL.image_size, 3), dtype=np.uint8)
    question = Question(keep_all=True, label=classes[2])
    (found,), _ = explain_pictures(classifier, [file], [picture], question)
    return found


def test_colour_lies_where_the_map_is_high_and_nowhere_else():
    values = np.zeros((8, 12))
    values[2, 3], values[5, 9] = 1.0, 0.3
    seen = overlay(GREY, values)
    plain = seen[0, 0]
    assert plain.tolist() == [128] * 3
    assert (seen == plain).all(-1).sum() == 8 * 12 - 2
    red, _, blue = seen[2, 3].astype(int)
    assert red > blue + 40  # yellow
    signed = overlay(GREY, np.where(values == 1, -1, values))
    assert signed[2, 3, 2] > signed[2, 3, 1]  # violet
    assert signed[5, 9, 0] > signed[5, 9, 2]  # orange


def test_an_even_map_has_no_colour():
    assert np.array_equal(overlay(GREY, np.full((8, 12), 0.7)), GREY)
    assert np.array_equal(overlay(GREY, np.zeros((8, 12))), GREY)


@pytest.mark.parametrize("build", ["cls", "mean", "stem"])
def test_every_drawing_is_a_picture(build, tmp_path):
    found = explained(build)
    found.save(tmp_path / "a.png")
    found.save_attention(tmp_path / "b.png")
    found.save_arrays(tmp_path / "c.npz")
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            assert len(np.unique(np.asarray(image.convert("L")))) > 50
    with Image.open(tmp_path / "a.png") as wide:
        assert wide.width > 4 * wide.height * 0.8  # the picture and four maps in a row
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "c.npz"}
    with np.load(tmp_path / "c.npz") as arrays:
        assert np.array_equal(arrays["picture"], found.picture)
        assert np.array_equal(arrays["heads"], found.attention)
        for name, each in found.maps.items():
            assert np.array_equal(arrays[name], each.values)
            assert arrays[name].shape == SMALL.image_size
    found.save(Path(tmp_path / "a.png"))  # the same file again


def test_the_caption_tells_files_of_several_classes_apart():
    found = explained("cls")
    long = "a_name_of_a_folder_that_fills_a_line/"
    names = ["0.png", "happy/0.png", "sad/0.png", f"{long}0.png", f"{long}1.png", f"x{long}1.png"]
    drawn = [draw_explanation(replace(found, file=name)) for name in names]
    assert len(set(drawn[:5])) == 5
    assert drawn[5] == drawn[4]  # what is too long is cut in front
    assert draw_explanation(replace(found, file="home/sad/0.png")) == drawn[2]
    assert len({draw_heads(replace(found, file=name)) for name in names[:5]}) == 5


def test_filters_and_positions_are_drawn_large_enough():
    model = drawn({})
    filters = Image.open(io.BytesIO(draw_filters(patch_filters(model))))
    assert filters.size == (7 * 67 + 3, 4 * 67 + 3)  # 23 components in rows of 7
    similarity = position_similarity(model)
    assert similarity is not None
    positions = Image.open(io.BytesIO(draw_positions(similarity)))
    assert min(positions.size) > 300
