"""Which weights a run is left with, and how sure they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.run import RunFolder
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.evaluation.inference import TorchNetwork, predict_set
from vitreous.evaluation.results import Kept
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.serving.calibrate import settle_run
from vitreous.training.classifier import Classifier, load_classifier, save_classifier

LOOKS = Preprocess(image_size=(32, 32), mirror=True)
PER_CLASS = 50


@pytest.fixture
def valid() -> PictureSet:
    """Dark pictures and bright ones, each of one grey, so that its mirror image is the same."""
    greys = np.concatenate([np.linspace(0, 80, PER_CLASS), np.linspace(160, 250, PER_CLASS)])
    pixels = np.broadcast_to(greys[:, None, None, None], (len(greys), 32, 32, 3)).astype(np.uint8)
    labels = torch.tensor([0, 1]).repeat_interleave(PER_CLASS)
    return PictureSet(pixels, np.arange(len(pixels)), labels, (Path(),) * len(pixels))


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def classifier_that_is_wrong_on(valid: PictureSet, wrong: int, seed: int = 0) -> Classifier:
    """It tells bright from dark, but for so many bright pictures, which it calls dark."""
    torch.manual_seed(seed)
    small = {"image_size": (32, 32), "embed_dim": 32, "depth": 1, "num_heads": 2}
    model = ViT(preset("Ti/16", num_classes=2, **small)).eval()
    with torch.no_grad():
        tokens = model.forward_tokens(normalise(torch.from_numpy(valid.pixels), LOOKS))
        dark, bright = model.pool(tokens).unflatten(0, (2, PER_CLASS))
        direction = bright.mean(0) - dark.mean(0)
        heights = (bright @ direction).sort().values
        # Between the two where all are to be right, else behind the last that is to be wrong.
        floor = heights[wrong - 1] if wrong else (dark @ direction).max()
        model.head.weight.copy_(torch.stack([torch.zeros_like(direction), direction]))
        assert floor < heights[wrong]
        model.head.bias.copy_(torch.stack([torch.zeros(()), -(floor + heights[wrong]) / 2]))
    return Classifier(model, LOOKS, ("dark", "bright"), None)


def is_from(run: RunFolder, classifier: Classifier) -> bool:
    """But for the head, which is divided."""
    kept = load_classifier(run.best).model.state_dict()
    return all(
        torch.equal(value, kept[name])
        for name, value in classifier.model.state_dict().items()
        if not name.startswith("head.")
    )


@pytest.mark.parametrize(("wrong_at_best", "keeps"), [(9, "last"), (0, "best"), (30, "last")])
def test_the_last_weights_stay_unless_others_are_better_by_more_than_chance(
    run, valid, wrong_at_best, keeps
):
    best = classifier_that_is_wrong_on(valid, wrong_at_best, seed=0)
    last = classifier_that_is_wrong_on(valid, 10, seed=1)
    save_classifier(run.best, best)
    save_classifier(run.last, last)
    settle_run(run, valid, "cpu")
    assert is_from(run, last) == (keeps == "last")
    assert is_from(run, best) == (keeps == "best")
    kept = Kept.read(run)
    assert kept is not None
    assert kept.weights == keeps
    assert kept.gain == pytest.approx((10 - wrong_at_best) / (2 * PER_CLASS))


def test_what_is_kept_is_as_sure_as_it_is_right(run, valid):
    best = classifier_that_is_wrong_on(valid, 20)
    last = classifier_that_is_wrong_on(valid, 20, seed=1)
    save_classifier(run.best, best)
    save_classifier(run.last, last)
    before = predict_set(TorchNetwork(last.model), valid, LOOKS)
    settle_run(run, valid, "cpu")
    kept = load_classifier(run.best)
    after = predict_set(TorchNetwork(kept.model), valid, LOOKS)
    right = np.arange(2 * PER_CLASS), valid.labels.numpy()
    assert kept.temperature is not None
    assert np.log(after[right]).mean() > np.log(before[right]).mean()
    assert (after.argmax(1) == before.argmax(1)).all()
    assert load_classifier(run.last).temperature is None


def test_a_second_time_changes_nothing(run, valid):
    save_classifier(run.best, classifier_that_is_wrong_on(valid, 0))
    save_classifier(run.last, classifier_that_is_wrong_on(valid, 20, seed=1))
    settle_run(run, valid, "cpu")
    files = {path.name: path.read_bytes() for path in run.path.iterdir()}
    settle_run(run, valid, "cpu")
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == files


def test_where_nothing_was_trained_step_by_step_there_is_no_choice(run, valid):
    alone = classifier_that_is_wrong_on(valid, 3)
    save_classifier(run.best, alone)
    settle_run(run, valid, "cpu")
    assert is_from(run, alone)
    assert load_classifier(run.best).temperature is not None
    assert Kept.read(run) is None
