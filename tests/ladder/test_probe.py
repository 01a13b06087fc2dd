import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier

from vitreous.ladder.features import Features
from vitreous.ladder.probe import linear_probe, nearest_neighbors


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


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_head_is_the_best_of_scikit_learns(classes):
    found = features(classes)
    weight, bias = linear_probe(found, classes, balanced=False)
    assert (weight.shape, bias.shape) == ((classes, 12), (classes,))
    mine = (torch.from_numpy(found.valid) @ weight.T + bias).softmax(1).numpy()
    mean, std = found.train.mean(0), found.train.std(0)
    losses, fits = [], []
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0):
        fit = LogisticRegression(C=strength, max_iter=2000)
        fit.fit((found.train - mean) / std, found.train_labels)
        fits.append(fit.predict_proba((found.valid - mean) / std))
        losses.append(log_loss(found.valid_labels, fits[-1]))
    np.testing.assert_allclose(mine, fits[int(np.argmin(losses))], atol=5e-3)
    assert np.argmin(losses) not in (0, 5)
    assert (mine.argmax(1) == found.valid_labels).mean() > 1.5 / classes


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
