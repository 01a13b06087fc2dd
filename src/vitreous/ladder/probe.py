"""What can be told from frozen features: by the nearest pictures, and by a new head alone."""

import time
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vitreous.ladder.features import Features

#: Strengths of the head's decay that are tried, as scikit-learn counts them: less and less.
_STRENGTHS = 10.0 ** np.arange(-4.0, 1.5)
#: Iterations of each.
_MOST_ITERATIONS = 200
#: Strengths in a row that are no better than the best before them, behind which none is hoped for.
_MOST_WORSE = 2
#: Sharpness of the neighbours' votes (Caron et al. 2021, "DINO", section 4.1 and its code).
_TEMPERATURE = 0.07


def nearest_neighbors(features: Features, classes: int, neighbors: int) -> np.ndarray:
    """Probabilities of the validation pictures by the votes of their nearest training pictures.

    Near is a small angle; the nearer the neighbour, the more its vote counts.

    Shape:
        -> (validation pictures, classes)
    """
    from sklearn.neighbors import NearestNeighbors

    train, valid = _unit(features.train), _unit(features.valid)
    count = min(neighbors, len(train))
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(train)
    distances, found = search.kneighbors(valid)
    votes = np.exp((1.0 - distances) / _TEMPERATURE)
    shares = np.zeros((len(valid), classes))
    np.add.at(shares, (np.arange(len(valid))[:, None], features.train_labels[found]), votes)
    return shares / shares.sum(1, keepdims=True)


def linear_probe(
    features: Features, classes: int, balanced: bool, seconds: float | None = None
) -> tuple[Tensor, Tensor]:
    """A head for frozen features: multinomial logistic regression.

    How much it is held back is chosen by the loss on the validation pictures, from much to little.

    Args:
        features: of all pictures.
        classes: every one has a training picture.
        balanced: whether each class counts the same, however many pictures it has.
        seconds: that it may take. The strongest decay is always tried to its end, which is quick;
            ``None`` for no clock to decide.

    Shape:
        -> weight (classes, features), bias (classes)
    """
    mean, std = features.train.mean(0), features.train.std(0) + 1e-6
    train, valid = (features.train - mean) / std, (features.valid - mean) / std
    near = replace(features, train=train, valid=valid)
    weight, bias = _least_loss(near, classes, balanced, seconds)
    if classes == 2:  # one row there, which tells the second class from the first
        weight, bias = np.vstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
    weight = weight / std
    bias = bias - weight @ mean
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def _least_loss(
    features: Features, classes: int, balanced: bool, seconds: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The fit that validates best, of one for each strength, each beginning with the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    every = np.arange(classes)
    best_loss, best, worse, iterations = np.inf, None, 0, _MOST_ITERATIONS
    fit = LogisticRegression(warm_start=True, class_weight="balanced" if balanced else None)
    started = time.monotonic()
    for strength in _STRENGTHS:
        begun = time.monotonic()
        fit.set_params(C=strength, max_iter=iterations)
        with warnings.catch_warnings():
            # With the weakest decay it goes on for ever, and the validation loss rises.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit.fit(features.train, features.train_labels)
        loss = log_loss(features.valid_labels, fit.predict_proba(features.valid), labels=every)
        if loss < best_loss:
            best_loss, best, worse = loss, (np.array(fit.coef_), np.array(fit.intercept_)), 0
        else:
            worse += 1
        if seconds is not None:
            now = time.monotonic()
            iteration_s = max(now - begun, 1e-6) / max(int(fit.n_iter_[0]), 1)
            iterations = int(min((seconds + started - now) / iteration_s, _MOST_ITERATIONS))
        if worse == _MOST_WORSE or iterations < 1:
            break
    assert best is not None
    return best


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
