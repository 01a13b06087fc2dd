"""`vitreous.Model`: opened once, asked about files, bytes, arrays and Pillow's images."""

import numpy as np
import pytest
from PIL import Image

import vitreous
from vitreous.errors import DataError


@pytest.fixture(scope="module")
def model(run) -> vitreous.Model:
    return vitreous.Model(run)


def _probabilities(answers: list[dict]) -> np.ndarray:
    return np.array([list(answer["probabilities"].values()) for answer in answers])


def test_all_ways_to_give_a_picture_have_one_answer(model, run, faces):
    path = faces / "test" / "happy" / "00003.png"
    image = Image.open(path)
    ways = (str(path), path, path.read_bytes(), np.asarray(image), image)
    answers = model.predict(*ways)
    assert [one["file"] for one in answers] == [
        str(path), str(path), "picture 3", "picture 4", "picture 5"
    ]  # fmt: skip
    wanted = vitreous.predict(run, path)[0]
    assert model.classes == tuple(wanted["probabilities"]) == ("angry", "happy", "sad")
    for answer in answers:
        assert answer["label"] == wanted["label"]
        assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)


def test_it_can_be_asked_again_and_about_folders(model, run, faces):
    folder = faces / "test" / "sad"
    twice = [_probabilities(model.predict(folder)) for _ in range(2)]
    assert np.array_equal(*twice)
    assert np.array_equal(twice[0], _probabilities(vitreous.predict(run, folder)))


def test_an_image_of_pillow_is_read_by_the_same_contract_as_its_file(model, faces, tmp_path):
    """Transparency is laid over white, 16 bits keep their upper eight, EXIF turns."""
    image = Image.open(faces / "test" / "angry" / "00001.png").convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    turned, exif = image.convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 50)
    for number, (one, words) in enumerate(((image, {}), (turned, {"exif": exif}), (deep, {}))):
        path = tmp_path / f"{number}.png"
        one.save(path, **words)
        in_file, opened, raw = model.predict(path, Image.open(path), path.read_bytes())
        assert opened["probabilities"] == pytest.approx(in_file["probabilities"], abs=1e-6)
        assert raw["probabilities"] == pytest.approx(in_file["probabilities"], abs=1e-6)


def test_what_can_not_be_read_has_an_error_and_what_is_no_picture_is_refused(model):
    (answer,) = model.predict(b"no picture")
    assert answer == {
        "file": "picture 1",
        "error": "not a picture in a known format (JPEG, PNG, WEBP, BMP, TIFF, GIF)",
    }
    for array in (
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ):
        with pytest.raises(DataError, match=r"picture 2 is an array of .*\(height, width, 3\)"):
            model.predict(np.zeros((8, 8, 3), np.uint8), array)
    with pytest.raises(DataError, match="no file or folder at nowhere"):
        model.predict("nowhere")


def test_a_damaged_or_empty_image_does_not_stop_the_others(model, faces, tmp_path):
    path = faces / "test" / "angry" / "00001.png"
    whole = path.read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    half, empty, last = model.predict(
        Image.open(tmp_path / "half.png"), Image.new("RGB", (0, 5)), Image.open(path)
    )
    assert half["error"].startswith("damaged")
    assert empty["error"] == "it has no pixels"
    assert last["label"] in model.classes


def test_an_array_may_lie_in_memory_in_any_way(model, faces):
    array = np.asarray(Image.open(faces / "test" / "sad" / "00001.png").resize((50, 40)))
    swapped = np.ascontiguousarray(array[..., ::-1])  # as OpenCV has it
    plain, turned, columns = model.predict(array, swapped[..., ::-1], np.asfortranarray(array))
    assert turned["probabilities"] == columns["probabilities"] == plain["probabilities"]


def test_what_a_precision_changes_is_said_once(run, faces, capsys):
    model = vitreous.Model(run, precision="bfloat16")
    model.predict(b"no picture")  # of which nothing can be said
    for _ in range(2):
        model.predict(faces / "test" / "sad")
    assert capsys.readouterr().err.count("bfloat16: pictures compared with float32: ") == 1
