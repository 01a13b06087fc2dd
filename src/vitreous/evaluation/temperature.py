"""One number that makes probabilities as sure as they are right."""

import numpy as np

#: Of a temperature: outside lies only what can't be told from none or from endless trust.
_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The number that logits should be divided by (Guo et al. 2017, section 4.2).

    It minimises the loss on pictures that the model didn't learn from, to four digits. The order of
    the classes, and so every answer, stays as it is. One more picture is counted, of which every
    class is as likely: a few pictures, all answered rightly, would otherwise ask for endless trust.

    Args:
        logits: of each look at each picture; probabilities are the mean over the looks.
        labels: the true classes.

    Shape:
        (pictures, looks, classes), (pictures,) -> above 0

    Example:
        >>> sure, labels = np.array([[[4.0, 0.0]]] * 4), np.array([0, 0, 0, 1])
        >>> chance = 1 / (1 + np.exp(-4 / fit_temperature(sure, labels)))
        >>> round(float(chance), 2)  # 3 of 4 are right, and one half of a fifth
        0.7
    """
    from scipy.optimize import minimize_scalar

    logits = logits.astype(np.float64)
    spread = 1.0 / (len(labels) + 1)

    def loss(log_temperature: float) -> float:
        chances = log_probabilities(logits / np.exp(log_temperature))
        of_truth = chances[np.arange(len(labels)), labels]
        return -float(((1 - spread) * of_truth + spread * chances.mean(1)).mean())

    bounds = (np.log(_LOWEST), np.log(_HIGHEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return float(f"{np.exp(found.x):.4g}")


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the mean over the looks, without rounding small probabilities to 0.

    Shape:
        (pictures, looks, classes) -> (pictures, classes)
    """
    from scipy.special import log_softmax, logsumexp

    return logsumexp(log_softmax(logits, axis=2), axis=1) - np.log(logits.shape[1])
