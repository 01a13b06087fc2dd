"""Altered copies of training pictures among those held back, as `diagnose` finds them."""

from PIL import Image

from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_dataset
from vitreous.data.faces import write_faces
from vitreous.data.folder import list_labelled
from vitreous.data.preprocess import Preprocess
from vitreous.diagnosis.gather import exact_copies
from vitreous.inquiry import find_leaks


def test_copies_in_another_size_and_format_are_leaks(tmp_path):
    folder = tmp_path / "faces"
    write_faces(folder / "train", 12, size=64, seed=1)
    write_faces(folder / "valid", 5, size=64, seed=2)
    for number in range(3):
        with Image.open(folder / "train" / "sad" / f"{number:05}.png") as image:
            small = image.resize((56, 56))
            small.save(folder / "valid" / "sad" / f"copy-{number}.jpg", quality=85)
    settings = DataConfig(str(folder), cache_dir=str(tmp_path / "cache"))
    dataset = open_dataset(list_labelled(folder), settings, Preprocess(image_size=(64, 64)), 0)
    assert exact_copies(dataset, "valid") == []
    found = [dataset.sets["valid"].paths[at].name for at in find_leaks(dataset, "valid", folder)]
    assert found == ["copy-0.jpg", "copy-1.jpg", "copy-2.jpg"]
    assert find_leaks(dataset, "train", folder) == list(range(36))  # each is its own copy
