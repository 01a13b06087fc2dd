from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.evaluation.refusal import FEATURES, KEPT, LOOKS, Refusal, View, fit_views, looks_of


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([draw_face(EXPRESSIONS[at % 3], 32, rng) for at in range(320)])


@pytest.fixture(scope="module")
def refusal(faces) -> Refusal:
    """Of a model whose features are the mean colours; others calibrate it."""
    views = fit_views(looks(faces[:120]), features(faces[:120]), np.arange(120) % 3)
    return Refusal.calibrated(views, numbers(faces[120:280]))


def looks(pixels: np.ndarray) -> np.ndarray:
    return looks_of(torch.from_numpy(pixels)).numpy()


def features(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1, 3).mean(1) / 255


def numbers(pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {LOOKS: looks(pixels), FEATURES: features(pixels)}


def refused(refusal: Refusal, pixels: np.ndarray) -> float:
    return np.mean([reason is not None for reason in refusal.reasons(numbers(pixels))])


def test_proper_pictures_are_kept_and_others_refused(refusal, faces):
    assert refusal.promised
    assert refusal.calibrated_on == refusal.needed + 3 == 160
    assert refused(refusal, faces[280:]) < 0.15
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    even = np.full((1, 32, 32, 3), 128, np.uint8)
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 3))[None]
    for others in (noise, even, ramp):
        assert refused(refusal, others) > 0.9


def test_the_reason_is_the_way_of_looking_that_shows_it(refusal, faces):
    proper = numbers(faces[280:281])
    strange = {LOOKS: proper[LOOKS], FEATURES: proper[FEATURES] + 5}
    assert refusal.reasons(strange) == [FEATURES]
    strange = {LOOKS: proper[LOOKS] + 5, FEATURES: proper[FEATURES]}
    assert refusal.reasons(strange) == [LOOKS]


def test_a_little_compression_is_no_reason(refusal, faces):
    def compressed(picture):
        file = BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=90, subsampling=0)
        return np.asarray(Image.open(file))

    packed = np.stack([compressed(face) for face in faces[280:]])
    assert refused(refusal, packed) < 0.2


@pytest.mark.parametrize("alike", [True, False])
def test_at_least_the_promised_share_is_kept(alike):
    """In 95 % of the calibrations, whatever the distribution, from the fewest pictures on.

    Two views that show the same are as good as one; two that have nothing in common draw two
    limits by the same pictures, and of those each costs something.
    """
    rng, kept, draws = np.random.default_rng(0), 0, 300
    views = (slice(0, 3), slice(0, 2) if alike else slice(3, 5))

    def seen(numbers):
        return {LOOKS: numbers[:, views[0]], FEATURES: numbers[:, views[1]]}

    train = rng.standard_t(4, (300, 5))
    fitted = {name: View.fit(part, np.zeros(300, int), 1e-3) for name, part in seen(train).items()}
    proper = seen(torch.from_numpy(rng.standard_t(4, (20_000, 5))))
    for _ in range(draws):
        refusal = Refusal.calibrated(fitted, seen(rng.standard_t(4, (157, 5))))
        assert refusal.promised
        kept_now = (refusal.strangeness(proper) <= refusal.limit).all(1).double().mean()
        kept += float(kept_now) >= KEPT
    assert kept / draws >= 0.92


def test_too_few_pictures_refuse_only_what_is_farther_than_all(faces):
    views = fit_views(looks(faces[:120]), features(faces[:120]), np.arange(120) % 3)
    refusal = Refusal.calibrated(views, numbers(faces[120:150]))
    assert not refusal.promised
    assert refused(refusal, faces[120:150]) == 0
    assert refused(refusal, np.zeros((1, 32, 32, 3), np.uint8)) == 1


def test_distances_are_mahalanobis_to_the_nearest_class():
    """As scikit-learn has them, but for the little variance that every direction is given."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 2
    train = rng.multivariate_normal([0, 0], [[4, 1.5], [1.5, 1]], 600) + 6 * labels[:, None]
    view = View.fit(train, labels, faint=1e-6)
    scale = train.std(0)
    means = [(train[labels == k] / scale).mean(0) for k in (0, 1)]
    spread = np.concatenate([train[labels == k] / scale - means[k] for k in (0, 1)])
    found = LedoitWolf(assume_centered=True).fit(spread).covariance_ + 0.03 * np.eye(2)
    new = rng.standard_normal((20, 2)) * 5
    wanted = [
        min(float((x / scale - m) @ np.linalg.inv(found) @ (x / scale - m)) for m in means)
        for x in new
    ]
    np.testing.assert_allclose(view.distance(torch.from_numpy(new)), np.sqrt(wanted), rtol=1e-4)
    nearest = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(train, labels).predict(new)
    center, scale, means, whiten = (
        part.numpy() for part in (view.center, view.scale, view.means, view.whiten)
    )
    sides = [np.linalg.norm(((new - center) / scale - m) @ whiten, axis=1) for m in means]
    assert np.mean(np.argmin(sides, 0) == nearest) >= 0.95


def test_rounding_makes_no_picture_stranger(refusal, faces):
    """The one at the limit is kept, however its numbers were computed."""
    for name, view in refusal.views.items():
        own = torch.from_numpy(numbers(faces[120:280])[name])
        wanted = view.strangeness(own)
        assert wanted.max() == 159 / 160
        for factor in (1 - 1e-6, 1 + 1e-6):
            assert (view.strangeness(own * factor) - wanted).abs().mean() < 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 3)])
def test_looks_of_the_smallest_pictures_are_numbers(shape):
    found = looks(np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8))
    assert found.shape == (2, 15)
    assert np.isfinite(found).all()


def test_grey_pictures_alone_do_not_make_colour_infinitely_far():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(60, 200, (200, 16, 16, 1), dtype=np.uint8), 3, axis=3)
    view = View.fit(looks(grey), np.zeros(200, int), 0.1)
    tinted = grey[:5].copy()
    tinted[..., 0] += 20
    distances = view.distance(torch.from_numpy(looks(tinted)))
    assert torch.isfinite(distances).all()
    assert distances.min() > view.distance(torch.from_numpy(looks(grey))).max()
