from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vitreous.data.faces import EXPRESSIONS, draw_face, write_faces
from vitreous.errors import UserError

TRAIN, TEST, SIZE = 160, 80, 32


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Faces of shape (expression, picture, y, x, rgb), the last `TEST` of each for testing."""
    drawn = [
        [
            draw_face(name, SIZE, np.random.default_rng([1, kind, index]))
            for index in range(TRAIN + TEST)
        ]
        for kind, name in enumerate(EXPRESSIONS)
    ]
    return np.array(drawn, np.float64)


def accuracy(model, features: np.ndarray) -> float:
    """Balanced accuracy on the test pictures; features of shape (expression, picture, feature)."""
    train, test = features[:, :TRAIN], features[:, TRAIN:]
    kinds = np.arange(len(EXPRESSIONS))
    model.fit(np.concatenate(train), np.repeat(kinds, TRAIN))
    return balanced_accuracy_score(np.repeat(kinds, TEST), model.predict(np.concatenate(test)))


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("size", [16, 48, 97, 256])
def test_a_face_is_a_varied_rgb_picture(expression: str, size: int):
    face = draw_face(expression, size, np.random.default_rng(3))
    assert face.shape == (size, size, 3)
    assert face.dtype == np.uint8
    assert face.std() > 10


def test_the_largest_size_is_drawn():
    assert draw_face("sad", 1024, np.random.default_rng(0)).shape == (1024, 1024, 3)


def test_equal_generators_draw_equal_faces():
    first, second = (draw_face("sad", 32, np.random.default_rng(5)) for _ in range(2))
    other = draw_face("sad", 32, np.random.default_rng(6))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_size_does_not_change_who_is_drawn():
    large, small = (draw_face("happy", size, np.random.default_rng(4)) for size in (128, 64))
    reduced = np.asarray(Image.fromarray(large).reduce(2), np.float64)
    stranger = draw_face("happy", 64, np.random.default_rng(5))
    assert np.abs(reduced - small).mean() < 10 < np.abs(reduced - stranger).mean()


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path):
    few = write_faces(tmp_path / "few", 3, size=16, seed=2)
    many = write_faces(tmp_path / "many", {"sad": 5, "happy": 4, "angry": 3}, size=16, seed=2)
    names = [str(file.relative_to(tmp_path / "few")) for file in few]
    assert names[:4] == ["angry/00000.png", "angry/00001.png", "angry/00002.png", "happy/00000.png"]
    assert all((tmp_path / "many" / name).read_bytes() == (tmp_path / "few" / name).read_bytes()
               for name in names)  # fmt: skip
    assert len({file.read_bytes() for file in many}) == 12
    elsewhere = write_faces(tmp_path / "elsewhere", 1, size=16, seed=3)
    assert elsewhere[0].read_bytes() != few[0].read_bytes()


def test_counts_by_expression_and_progress(tmp_path: Path):
    steps: list[int] = []
    files = write_faces(tmp_path, {"sad": 2, "happy": 1}, size=20, on_done=steps.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["happy", "sad"]
    assert [file.parent.name for file in files] == ["sad", "sad", "happy"]
    assert sorted(tmp_path.rglob("*.png")) == sorted(files)
    assert steps == [1, 1, 1]
    with Image.open(files[0]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (20, 20))


def test_a_folder_in_use_is_left_alone(tmp_path: Path):
    note = tmp_path / "note.txt"
    note.write_text("mine")
    with pytest.raises(UserError, match="not an empty folder: name a new one") as error:
        write_faces(tmp_path, 1)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(UserError, match="not an empty folder"):
        write_faces(note, 1)
    assert list(tmp_path.iterdir()) == [note]


@pytest.mark.parametrize(
    ("per_class", "size", "seed", "message"),
    [
        ({"bored": 1}, 64, 0, "'bored'.*angry, happy, sad"),
        (1, 15, 0, "size 15.*16 to 1024"),
        (1, 1025, 0, "size 1025.*16 to 1024"),
        (-1, 64, 0, "-1 pictures of angry"),
        (1, 64, -1, "seed -1"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_written(
    tmp_path: Path, per_class, size: int, seed: int, message: str
):
    with pytest.raises(UserError, match=message):
        write_faces(tmp_path / "new", per_class, size=size, seed=seed)
    assert not (tmp_path / "new").exists()


def test_draw_face_refuses_wrong_values():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="angry, happy, sad"):
        draw_face("Happy", 64, rng)
    with pytest.raises(UserError, match="16 to 1024"):
        draw_face("happy", 8, rng)


def test_the_border_tells_nothing(pictures: np.ndarray):
    # Guessing gets a third of 240 right, with a standard deviation of sqrt(1/3 * 2/3 / 240) = 0.03;
    # 0.43 is more than three of these above. A background tied to the class gets far more.
    inside = np.zeros((SIZE, SIZE), bool)
    inside[3:-3, 3:-3] = True
    border = pictures[:, :, ~inside].mean(2)
    assert accuracy(NearestCentroid(), border) < 0.43
    tied = border + 30 * np.eye(3)[:, None]
    assert accuracy(NearestCentroid(), tied) > 0.43


def test_colour_and_brightness_tell_nothing(pictures: np.ndarray):
    summary = np.concatenate([pictures.mean((2, 3)), pictures.std((2, 3))], axis=2)
    assert accuracy(make_pipeline(StandardScaler(), NearestCentroid()), summary) < 0.43


def test_the_task_can_be_learned_but_is_not_trivial(pictures: np.ndarray):
    grey = pictures.mean(4).reshape(len(EXPRESSIONS), TRAIN + TEST, -1)
    # Measured with 600 training pictures: 0.56; a small convolutional network gets 0.93.
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=200))
    assert 0.45 < accuracy(linear, grey) < 0.95


def test_brows_and_mouths_differ(pictures: np.ndarray):
    angry, happy, sad = pictures.mean((1, 4))

    def step(face: np.ndarray, rows: slice, below: slice, columns: slice) -> float:
        return face[rows, columns].mean() - face[below, columns].mean()

    # Rows and columns of the mean face at 32 pixels. Anger lowers the brows onto the eyes; a smile
    # leaves skin where the middle of a sad mouth is and lies below it.
    brows = [step(face, np.s_[11:13], np.s_[14:16], np.s_[10:22]) for face in (angry, sad)]
    mouth = [step(face, np.s_[22:24], np.s_[25:27], np.s_[14:18]) for face in (happy, sad)]
    assert brows[0] > brows[1] + 8
    assert mouth[0] > mouth[1] + 8
