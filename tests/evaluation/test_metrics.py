import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from vitreous.evaluation.metrics import evaluate_probabilities


def drawn(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), count).astype(np.float32)
    return probabilities, rng.integers(0, classes, count)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 80), classes=st.integers(2, 8))
@settings(max_examples=50, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_scikit_learn(seed, count, classes):
    probabilities, labels = drawn(seed, count, classes)
    answers, names = probabilities.argmax(1), [f"c{index}" for index in range(classes)]
    found = evaluate_probabilities(probabilities, labels, names, majority_class=0)
    assert found.n == count
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(labels, answers))
    assert found.balanced_accuracy.value == pytest.approx(
        metrics.balanced_accuracy_score(labels, answers)
    )
    assert found.loss == pytest.approx(
        metrics.log_loss(labels, probabilities.astype(float), labels=range(classes)), rel=1e-4
    )
    for k, share in found.top_k.items():
        assert int(k) < classes
        hits = metrics.top_k_accuracy_score(
            labels, probabilities, k=int(k), labels=range(classes)
        ) if classes > 2 else None  # fmt: skip
        assert hits is None or share.value == pytest.approx(hits)
    report = metrics.classification_report(
        labels, answers, labels=range(classes), output_dict=True, zero_division=0
    )
    for index, name in enumerate(names):
        mine, theirs = found.per_class[name], report[str(index)]
        assert mine.precision == pytest.approx(theirs["precision"])
        assert mine.f1 == pytest.approx(theirs["f1-score"])
        assert mine.support == theirs["support"]
        if mine.support:
            assert mine.recall.value == pytest.approx(theirs["recall"])


def test_collapse_to_one_class_is_the_majority_baseline():
    labels = np.array([0, 1, 1, 2, 1, 0])
    probabilities = np.tile([0.2, 0.6, 0.2], (6, 1)).astype(np.float32)
    found = evaluate_probabilities(probabilities, labels, ["angry", "happy", "sad"], 1)
    assert found.accuracy.value == found.baselines["majority"]["accuracy"] == 0.5
    assert found.balanced_accuracy.value == pytest.approx(1 / 3)
    assert found.baselines["majority"]["label"] == "happy"
    assert found.baselines["chance"]["accuracy"] == pytest.approx(1 / 3)


def test_an_absent_class_counts_for_nothing_and_is_valid_json():
    labels = np.array([0, 0, 1])
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 1]]
    found = evaluate_probabilities(probabilities, labels, ["a", "b", "c"], 2)
    assert found.balanced_accuracy.value == pytest.approx(0.75)
    assert found.baselines["majority"]["accuracy"] == 0.0
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["per_class"]["c"]["recall"] == {"value": None, "low": 0.0, "high": 1.0}
    assert plain["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_a_certain_wrong_answer_has_a_finite_loss():
    probabilities = np.array([[1.0, 0.0]], dtype=np.float32)
    assert 80 < evaluate_probabilities(probabilities, np.array([1]), ["a", "b"], 0).loss < 100
