from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier

from vitreous.ladder import probe
from vitreous.ladder.features import Features
from vitreous.ladder.probe import linear_probe, nearest_neighbors

TRIED = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]


def features(classes: int, seed: int = 0) -> Features:
    """Overlapping clouds, with channels of very different sizes."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-2, 2, 12)
    middles = rng.normal(size=(classes, 12))

    def draw(count):
        labels = np.arange(count) % classes
        points = (middles[labels] + 1.5 * rng.normal(size=(count, 12))) * scale + 3 * scale
        return points.astype(np.float32), labels

    train, train_labels = draw(240)
    valid, valid_labels = draw(90)
    return Features(train, train_labels, valid, valid_labels)


def all_fits(found: Features) -> tuple[list[float], list[np.ndarray]]:
    """Validation loss and probabilities of every strength, each fitted from scratch."""
    mean, std = found.train.mean(0), found.train.std(0)
    losses, fits = [], []
    for strength in TRIED:
        fit = LogisticRegression(C=strength, max_iter=2000)
        fit.fit((found.train - mean) / std, found.train_labels)
        fits.append(fit.predict_proba((found.valid - mean) / std))
        losses.append(log_loss(found.valid_labels, fits[-1]))
    return losses, fits


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_head_is_the_best_of_scikit_learns(classes):
    found = features(classes)
    weight, bias = linear_probe(found, classes, balanced=False)
    assert (weight.shape, bias.shape) == ((classes, 12), (classes,))
    mine = (torch.from_numpy(found.valid) @ weight.T + bias).softmax(1).numpy()
    losses, fits = all_fits(found)
    np.testing.assert_allclose(mine, fits[int(np.argmin(losses))], atol=5e-3)
    assert np.argmin(losses) not in (0, 5)
    assert (mine.argmax(1) == found.valid_labels).mean() > 1.5 / classes


@pytest.fixture
def strengths(monkeypatch):
    """Those of which a fit was made."""
    made, fit = [], LogisticRegression.fit

    def note(self, *data):
        made.append(self.C)
        return fit(self, *data)

    monkeypatch.setattr(LogisticRegression, "fit", note)
    return made


def test_behind_two_that_are_worse_no_further_one_is_tried(strengths):
    rng = np.random.default_rng(0)
    # One column tells a little, the others nothing: the less it is held back, the worse.
    parts = [rng.normal(size=(count, 40)).astype(np.float32) for count in (90, 300)]
    labels = [np.arange(len(part)) % 3 for part in parts]
    for part, own in zip(parts, labels, strict=True):
        part[:, 0] += own
    noisy = Features(parts[0], labels[0], parts[1], labels[1])
    losses, _ = all_fits(noisy)
    best = int(np.argmin(losses))
    assert best + 3 < len(TRIED)
    strengths.clear()
    linear_probe(noisy, 3, balanced=False)
    assert strengths == pytest.approx(TRIED[: best + 3])


def test_without_time_the_strongest_is_taken_and_with_enough_the_best(strengths):
    found = features(3)
    weight, _ = linear_probe(found, 3, balanced=False, seconds=0.0)
    assert strengths == [1e-4]
    std = found.train.std(0)
    fit = LogisticRegression(C=1e-4).fit(
        (found.train - found.train.mean(0)) / std, found.train_labels
    )
    np.testing.assert_allclose(weight.numpy() * std, fit.coef_, atol=1e-4)
    unbounded, plenty = (linear_probe(found, 3, False, seconds) for seconds in (None, 1e6))
    for one, other in zip(unbounded, plenty, strict=True):
        assert torch.equal(one, other)
    assert not torch.allclose(unbounded[0], weight, atol=0.01)


def test_no_fit_goes_on_for_longer_than_there_is_time(monkeypatch):
    """By a clock to which every iteration is a second."""
    clock, fit = SimpleNamespace(now=0.0), LogisticRegression.fit
    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def note(self, *data):
        fitted = fit(self, *data)
        clock.now += int(self.n_iter_[0])
        return fitted

    monkeypatch.setattr(LogisticRegression, "fit", note)
    found = features(5)
    linear_probe(found, 5, balanced=False, seconds=1000.0)
    assert clock.now > 40
    clock.now = 0.0
    linear_probe(found, 5, balanced=False, seconds=30.0)
    assert clock.now == 30


def test_balanced_the_rare_class_is_found_more_often():
    found = features(2)
    rare = np.flatnonzero(found.train_labels == 1)[:12]
    kept = np.sort(np.concatenate([rare, np.flatnonzero(found.train_labels == 0)]))
    uneven = Features(found.train[kept], found.train_labels[kept], found.valid, found.valid_labels)

    def recall(balanced):
        weight, bias = linear_probe(uneven, 2, balanced)
        answers = (torch.from_numpy(found.valid) @ weight.T + bias).argmax(1).numpy()
        return (answers[found.valid_labels == 1] == 1).mean()

    assert recall(True) > recall(False) + 0.05


def test_neighbors_vote_as_scikit_learns_with_the_same_weights():
    found = features(3)
    mine = nearest_neighbors(found, 3, 20)
    fit = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07)
    )
    theirs = fit.fit(found.train, found.train_labels).predict_proba(found.valid)
    np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert not np.allclose(mine, nearest_neighbors(found, 3, 5), atol=0.01)


def test_fewer_pictures_than_neighbors_are_all_asked():
    found = features(3)
    few = Features(found.train[:4], found.train_labels[:4], found.valid, found.valid_labels)
    assert nearest_neighbors(few, 3, 20).sum(1) == pytest.approx(np.ones(90))
