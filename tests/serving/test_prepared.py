"""How a checkpoint's pictures are prepared: what is said goes before what the file says."""

from dataclasses import replace
from pathlib import Path

import pytest

from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, WeightsError
from vitreous.model.weights.settings import Preprocessing
from vitreous.serving.prepared import prepare

FILE = Path("vit.safetensors")
STATED = Preprocessing(
    image_size=(384, 384),
    resize=(400, 400),
    interpolation="bilinear",
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
)


def prepared(*told: str, stated: Preprocessing | None = None, side: int = 224) -> Preprocess:
    return prepare(FILE, stated, (side, side), told)[0]


@pytest.mark.parametrize(
    ("name", "resize", "mean", "std"),
    [
        ("half", (248, 248), 0.5, 0.5),
        ("imagenet", (256, 256), 0.485, 0.229),
        ("clip", None, 0.48145466, 0.26862954),
    ],
)
def test_a_name_means_how_published_models_are_evaluated(name, resize, mean, std):
    found = prepared(name, stated=STATED)
    assert (found.image_size, found.resize) == ((224, 224), resize)
    assert (found.mean[0], found.std[0]) == (mean, std)
    assert (found.interpolation, found.mirror) == ("bicubic", False)


def test_sizes_grow_with_the_model_and_with_the_crop():
    assert prepared("half", side=448).resize == (496, 496)
    found = prepared("imagenet", "crop=112")
    assert (found.image_size, found.resize) == ((112, 112), (128, 128))
    assert prepared("clip", "crop=336") == Preprocess(
        (336, 336), None, "bicubic", prepared("clip").mean, prepared("clip").std
    )


def test_what_the_file_says_is_kept_but_for_what_is_said():
    assert prepared(stated=STATED) == Preprocess(
        (384, 384), (400, 400), "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    )
    found = prepared("mean=0.5", "resize=500", "interpolation=bicubic", stated=STATED)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.4, 0.5, 0.6))
    assert (found.resize, found.interpolation) == ((500, 500), "bicubic")


def test_single_settings_can_say_it_all():
    found = prepared("mean=0.1,0.2,0.3", "std=1", side=32)
    assert found == Preprocess((32, 32), None, "bicubic", (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


def test_what_is_assumed_is_told():
    assert prepare(FILE, None, (224, 224), ["half"])[1] == (
        "pictures scaled to cover 248x248 px (bicubic), the middle 224x224 px; mean 0.5, std 0.5"
    )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["imagent"], "did you mean 'imagenet'"),
        (["half", "clip"], "exclude each other"),
        (["half", "crop=64", "crop=96"], "exclude each other"),
        (["size=3"], "allowed: crop, interpolation, mean, resize, std"),
        (["half", "mean=a"], "one number, or three"),
        (["half", "std=1,2"], "one number, or three"),
        (["half", "crop=-1"], "1 to 4096 pixels"),
        (["half", "crop=1e9"], "1 to 4096 pixels"),
        (["half", "interpolation=nearest"], "bicubic or bilinear"),
        (["half", "resize=100"], "smaller than image_size"),
        (["half", "std=0"], "above 0"),
        (["half", "std=nan"], "one number, or three"),
        (["half", "mean=inf"], "one number, or three"),
        (["half", "crop=4097"], "1 to 4096 pixels"),
    ],
)
def test_words_that_make_no_sense(told, words):
    with pytest.raises(ConfigError, match=words):
        prepared(*told)


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": (300, 300)},
        {"std": (0.0, 1.0, 1.0)},
        {"image_size": (65536, 65536)},
        {"resize": (65536, 65536)},
    ],
)
def test_a_file_that_states_what_cannot_be(changes):
    with pytest.raises(WeightsError, match=r"vit.safetensors states a preprocessing that can't be"):
        prepared(stated=replace(STATED, **changes))


@pytest.mark.parametrize("told", [[], ["mean=0.5"], ["crop=224", "std=1"]])
def test_nothing_is_guessed(told):
    with pytest.raises(WeightsError, match=r"vit.safetensors doesn't say .* --preprocess imagenet"):
        prepared(*told)
