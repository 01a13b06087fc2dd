import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import cross_val_predict

from vitreous.evaluation.label_errors import find_label_errors, label_errors_in_words


def answers(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that lean towards a label, of which some are others than those."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    chances = rng.dirichlet(np.ones(classes), count) + 0.8 * np.eye(classes)[labels]
    chances /= chances.sum(1, keepdims=True)
    at = rng.choice(count, count // 8, replace=False)
    labels[at] = (labels[at] + 1) % classes
    return chances.astype(np.float32), labels


def joint_by_hand(chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Equations 1 to 3 of the paper, picture by picture; the rows times the number of pictures."""
    classes = chances.shape[1]
    thresholds = [
        np.mean([float(row[j]) for row, label in zip(chances, labels, strict=True) if label == j])
        for j in range(classes)
    ]
    joint = np.zeros((classes, classes))
    for row, label in zip(chances, labels, strict=True):
        above = [j for j in range(classes) if row[j] >= thresholds[j]]
        if above:
            joint[label, max(above, key=lambda j: row[j])] += 1
    for i in range(classes):
        joint[i] *= np.sum(labels == i) / joint[i].sum()
    return joint


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (3, 1), (7, 2)])
def test_the_joint_is_the_papers(classes, seed):
    chances, labels = answers(300, classes, seed)
    found, by_hand = find_label_errors(chances, labels), joint_by_hand(chances, labels)
    np.testing.assert_allclose(found.noise, by_hand)
    assert found.expected.value == pytest.approx(by_hand.sum() - np.trace(by_hand))
    assert found.expected.low < found.expected.value < found.expected.high


def test_answers_without_doubt_give_the_confusion_matrix():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    given = np.where(rng.random(500) < 0.2, rng.integers(0, 4, 500), labels)
    found = find_label_errors(np.eye(4, dtype=np.float32)[given], labels)
    np.testing.assert_allclose(found.noise, confusion_matrix(labels, given))
    wrong = np.flatnonzero(given != labels)
    assert found.suspects.tolist() == wrong.tolist()
    assert found.suggested[wrong].tolist() == given[wrong].tolist()
    recalls = np.diag(confusion_matrix(labels, given, normalize="true"))
    assert found.agreement.value == pytest.approx(recalls.mean())


def test_the_order_is_that_of_the_odds():
    rows = [
        [0.30, 0.60, 0.02, 0.03, 0.05],  # twice as probable as its label
        [0.04, 0.30, 0.22, 0.22, 0.22],  # 7.5 times, though the difference is smaller
        [0.10, 0.10, 0.70, 0.05, 0.05],  # a seventh
        [0.00, 0.40, 0.20, 0.20, 0.20],  # a label that can't be
        [0.05, 0.05, 0.40, 0.40, 0.10],  # as probable: nothing against it
    ]
    found = find_label_errors(np.array(rows, dtype=np.float32), np.array([0, 0, 2, 0, 2]))
    assert found.order.tolist() == [3, 1, 0, 4, 2]
    assert found.against == 3
    assert found.suggested.tolist() == [1, 1, 0, 1, 3]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real pictures, their labels, and the same with every tenth flipped."""
    pixels, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    flipped = rng.choice(len(truth), len(truth) // 10, replace=False)
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + rng.integers(1, 10, len(flipped))) % 10
    return pixels / 16, truth, labels


def test_flipped_labels_of_real_pictures_come_first(digits):
    pixels, truth, labels = digits
    model = LogisticRegression(C=0.01, max_iter=200)
    chances = cross_val_predict(model, pixels, labels, cv=5, method="predict_proba")
    found = find_label_errors(chances.astype(np.float32), labels)
    wrong = labels != truth
    assert wrong[found.order[: len(labels) // 10]].sum() >= 0.8 * wrong.sum()
    assert wrong[found.suspects].sum() >= 0.9 * wrong.sum()
    assert wrong[found.suspects].mean() >= 0.6
    mended = found.suspects[wrong[found.suspects]]
    assert (found.suggested[mended] == truth[mended]).mean() >= 0.8
    # The model's own mistakes count in it, so it is never too low.
    assert wrong.sum() <= found.expected.value <= 2 * wrong.sum()


def test_a_model_that_has_learned_the_labels_finds_nothing(digits):
    pixels, truth, labels = digits
    forest = RandomForestClassifier(30, random_state=0).fit(pixels, labels)
    found = find_label_errors(forest.predict_proba(pixels).astype(np.float32), labels)
    assert (labels != truth).sum() > 170
    assert len(found.suspects) <= 5


def test_guesses_tell_nothing_about_labels():
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(3), 600).astype(np.float32)
    found = find_label_errors(chances, rng.integers(0, 3, 600))
    assert not found.means_something
    assert len(found.suspects) == 0
    assert "no better than guessing" in label_errors_in_words(found)


def test_nothing_stands_out_where_all_agree():
    labels = np.repeat([0, 1], 20)
    chances = (0.8 * np.eye(2)[labels] + 0.1).astype(np.float32)
    found = find_label_errors(chances, labels)
    assert found.expected.value == 0
    assert found.noise.tolist() == [[20, 0], [0, 20]]
    assert label_errors_in_words(found) == "None of 40 labels stands out."


def test_a_class_that_no_picture_has_takes_none():
    chances, labels = answers(200, 3, 4)
    wider = np.pad(chances, ((0, 0), (0, 1)))
    wider[:20, 3], wider[:20, :3] = 0.9, wider[:20, :3] / 10
    found = find_label_errors(wider, labels)
    assert found.noise.shape == (4, 4)
    assert found.noise[3].sum() == found.noise[:, 3].sum() == 0
    assert found.noise.sum() == pytest.approx(200)


def test_the_sentence_has_the_numbers():
    chances, labels = answers(400, 3, 5)
    found = find_label_errors(chances, labels)
    text = label_errors_in_words(found)
    assert len(found.suspects) == round(found.expected.value)
    assert text.startswith(f"{len(found.suspects)} of 400 labels are worth a look; ")
