"""The search for copies, held against SciPy and Pillow."""

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from tests.doctor.planting import ALTERED, SIDE
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.doctor import align, similar
from vitreous.doctor.align import LEAST_SCORE, score_pairs
from vitreous.doctor.similar import Candidates, find_candidates


def faces(count: int) -> np.ndarray:
    return np.stack(
        [draw_face(EXPRESSIONS[n % 3], SIDE, np.random.default_rng(n)) for n in range(count)]
    )


def grey(pictures: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in pictures])


def no_colour(count: int) -> np.ndarray:
    return np.full((count, 16, 16, 2), 128, np.uint8)


def pairs_of(found: Candidates) -> set[tuple[int, int, bool]]:
    return set(zip(found.first.tolist(), found.second.tolist(), found.mirrored.tolist(),
                   strict=True))  # fmt: skip


def test_the_spectrum_is_the_cosine_transform():
    luma = grey(faces(5))
    spectra = np.concatenate(list(similar._spectra(luma, np.arange(5), similar._cosines(SIDE))))
    expected = dctn(luma.astype(float), axes=(1, 2), norm="ortho")[:, :7, :7].reshape(5, -1)[:, 1:]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(spectra, expected, atol=1e-5)


def test_whitened_spectra_of_many_pictures_don_t_depend_on_each_other():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(40_000, 48)) * rng.uniform(0.1, 1, 48)
    mixed[:, ~similar._ODD] += 0.3 * mixed[:, ~similar._ODD][:, :1]
    white, mean = similar._whiten(mixed.astype(np.float32))
    covariance = np.cov(((mixed - mean) @ white).T)
    apart = np.abs(covariance - np.diag(covariance.diagonal())).max()
    assert apart < 0.1 < np.abs(np.corrcoef(mixed.T) - np.eye(48)).max()
    assert covariance.diagonal().max() < 1.1
    # So mirroring, which turns the signs of the odd ones, turns them after whitening as well.
    assert np.abs(white[np.ix_(similar._ODD, ~similar._ODD)]).max() == 0


@pytest.mark.parametrize("tile", [3, 7, 2048])
def test_tiles_make_no_difference(monkeypatch, tile):
    pictures = faces(24)
    pictures[20:] = pictures[2:6, :, ::-1]
    luma = np.concatenate([grey(pictures), grey(pictures[:4])])
    monkeypatch.setattr(similar, "_TILE", tile)
    calls = []
    found = find_candidates(luma, np.arange(len(luma)), lambda *call: calls.append(call))
    expected = {(n, 24 + n, False) for n in range(4)} | {(n, 18 + n, True) for n in range(2, 6)}
    expected |= {(20, 26, True), (21, 27, True)}
    assert expected <= pairs_of(found)
    assert all(first < second for first, second, _ in pairs_of(found))
    assert calls[-1][1] == calls[-1][2]


def test_only_the_rows_asked_for_are_compared():
    luma = np.concatenate([grey(faces(6))] * 2)
    rows = np.array([1, 2, 7, 9])
    assert pairs_of(find_candidates(luma, rows)) >= {(1, 7, False)}
    assert {row for pair in pairs_of(find_candidates(luma, rows)) for row in pair[:2]} <= set(rows)
    for few in ([], [3]):
        assert pairs_of(find_candidates(luma, np.array(few, dtype=np.int64))) == set()


def test_the_middle_of_a_picture_is_compared_too():
    """Without it, pictures cropped by 8 % at each edge would be too far away."""
    luma = grey(faces(40))
    cut = round(0.08 * SIDE)
    crops = np.stack(
        [np.asarray(Image.fromarray(one[cut:-cut, cut:-cut]).resize((SIDE, SIDE))) for one in luma]
    )
    found = pairs_of(find_candidates(np.concatenate([luma, crops]), np.arange(80)))
    assert {(row, row + 40, False) for row in range(40)} <= found


def test_in_a_film_not_every_frame_is_paired_with_every_other(monkeypatch):
    luma = np.repeat(grey(faces(1)), 60, axis=0)
    found = find_candidates(luma, np.arange(60))
    _, counts = np.unique(found.first, return_counts=True)
    assert counts.max() == similar._MOST_PARTNERS


def test_of_a_film_no_more_than_a_tile_s_pairs_are_kept_at_once(monkeypatch):
    widths, choose = [], similar._most_similar
    monkeypatch.setattr(similar, "_TILE", 10)
    monkeypatch.setattr(
        similar, "_most_similar", lambda found: widths.append(found.shape[1]) or choose(found)
    )
    luma = np.repeat(grey(faces(1)), 120, axis=0)
    find_candidates(luma, np.arange(120))
    assert len(widths) > 12
    assert max(widths) <= 10 * similar._MOST_PARTNERS + 2 * 10 * 10


def test_a_crop_is_laid_where_it_was_cut():
    """Pillow cuts and scales; the stretch and the shift follow from the box."""
    picture = Image.fromarray(draw_face("sad", 256, np.random.default_rng(3))).convert("L")
    whole = np.asarray(picture.resize((64, 64), Image.Resampling.BOX))
    box = (13, 26, 243, 256)  # of 256
    crop = np.asarray(picture.resize((64, 64), Image.Resampling.BOX, box))
    one = align._standard(align._floats(whole[None, None]))
    two = align._standard(align._floats(crop[None, None]))
    place = align.torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    for side, steps in ((16, 6), (32, 6), (64, 6)):
        for _ in range(steps):
            place = align._step(align._smaller(one, side), align._smaller(two, side), place)
    # A place u of the whole, from -1 to 1, is at (u - centre) / share of the crop.
    share = np.array([box[2] - box[0], box[3] - box[1]]) / 256
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 256 - 1
    np.testing.assert_allclose(place[0, :2], 1 / share, atol=0.01)
    np.testing.assert_allclose(place[0, 2:], -centre / share, atol=0.01)


@pytest.mark.parametrize("name", ALTERED)
def test_altered_copies_score_and_other_faces_don_t(name):
    count = 12
    pictures = faces(count)
    copies = [
        np.asarray(ALTERED[name](Image.fromarray(one)).convert("L").resize((SIDE, SIDE)))
        for one in pictures
    ]
    luma = np.concatenate([grey(pictures), np.stack(copies)])
    sides = np.full(len(luma), SIDE)
    mirrored = np.full(count, name in ("mirrored", "all at once"))
    same = Candidates(np.arange(count), np.arange(count) + count, mirrored)
    other = Candidates(np.arange(count), np.roll(np.arange(count), 3) + count, mirrored)
    colour = no_colour(len(luma))
    assert score_pairs(luma, colour, sides, same).min() > LEAST_SCORE
    assert score_pairs(luma, colour, sides, other).max() < LEAST_SCORE


def test_colours_that_differ_take_something_off():
    luma = np.repeat(grey(faces(1)), 3, axis=0)
    colour = no_colour(3)
    colour[:2, :, :, 0] = 180
    colour[2, :, :, 1] = 180
    pairs = Candidates(np.array([0, 0]), np.array([1, 2]), np.array([False, False]))
    same, other = score_pairs(luma, colour, np.full(3, SIDE), pairs)
    assert same == pytest.approx(1, abs=1e-4)
    assert LEAST_SCORE < other < 0.9


def test_pictures_of_few_pixels_are_compared_as_coarsely_as_they_are():
    """What was lost in making a copy small doesn't count against it."""
    luma = grey(faces(10))
    small = np.stack(
        [np.asarray(Image.fromarray(one).resize((20, 20)).resize((64, 64))) for one in luma]
    )
    both, pairs = np.concatenate([luma, small]), np.arange(10)
    same = Candidates(pairs, pairs + 10, np.zeros(10, bool))
    fairly = score_pairs(both, no_colour(20), np.repeat([64, 20], 10), same)
    finely = score_pairs(both, no_colour(20), np.full(20, 64), same)
    assert fairly.min() > LEAST_SCORE
    assert fairly.mean() > finely.mean() + 0.05


def test_flat_pictures_are_no_copies_of_anything():
    luma = np.stack([np.full((64, 64), 90, np.uint8), np.full((64, 64), 200, np.uint8)])
    pairs = Candidates(np.array([0]), np.array([1]), np.array([False]))
    score = score_pairs(luma, no_colour(2), np.full(2, SIDE), pairs)
    assert np.isfinite(score).all()
    assert score[0] < LEAST_SCORE
    none = Candidates(*(np.zeros(0, np.int64),) * 2, np.zeros(0, bool))
    assert len(score_pairs(luma, no_colour(2), np.full(2, SIDE), none)) == 0
