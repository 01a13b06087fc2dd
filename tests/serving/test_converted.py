"""The cache of converted models: made once, whole or not there, bounded."""

import os

import pytest
from filelock import FileLock

from vitreous.errors import StorageError
from vitreous.serving import converted
from vitreous.serving.converted import default_models_dir, open_converted


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    return path


class Conversion:
    """Writes the weights' bytes, and counts."""

    def __init__(self, weights, text: str = "whole"):
        self.weights, self.text, self.made = weights, text, 0

    def make(self, folder):
        self.made += 1
        (folder / "model").write_text(self.text + self.weights.read_text())

    def open(self, entry):
        found = (entry / "model").read_text()
        if not found.startswith("whole"):
            raise ValueError(found)
        return found

    def __call__(self, kind="a") -> str:
        return open_converted([self.weights], kind, self.make, self.open, lambda: None)


def test_weights_and_kind_name_the_entry(weights):
    conversion = Conversion(weights)
    assert [conversion(), conversion(), conversion("b"), conversion("b")] == ["wholeone"] * 4
    assert conversion.made == 2
    weights.write_bytes(b"two")
    assert conversion() == "wholetwo"
    weights.write_bytes(b"one")
    assert conversion() == "wholeone"
    assert conversion.made == 3


def test_a_damaged_entry_is_made_anew(weights):
    conversion = Conversion(weights)
    conversion()
    (entry,) = (path for path in default_models_dir().iterdir() if path.is_dir())
    (entry / "model").write_text("half")
    assert conversion() == "wholeone"
    (entry / "model").unlink()
    assert conversion() == "wholeone"
    assert conversion.made == 3


def test_a_conversion_that_fails_leaves_nothing(weights):
    conversion = Conversion(weights)

    def fail(folder):
        conversion.make(folder)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        open_converted([weights], "a", fail, conversion.open, lambda: None)
    assert [path for path in default_models_dir().iterdir() if path.is_dir()] == []
    assert conversion() == "wholeone"


def test_the_least_recently_used_go_when_it_grows(weights, monkeypatch):
    conversion = Conversion(weights)
    conversion("a"), conversion("b")
    for age, entry in enumerate(path for path in default_models_dir().iterdir() if path.is_dir()):
        os.utime(entry, (1000 - age, 1000 - age))
    conversion("a")  # used last
    monkeypatch.setattr(converted, "MAX_BYTES", 2 * len("wholeone"))
    conversion("c")
    made = conversion.made
    conversion("a"), conversion("c")
    assert conversion.made == made
    conversion("b")
    assert conversion.made == made + 1


def test_a_cache_that_can_not_be_written(weights, tmp_path):
    (tmp_path / "user-cache").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="user-cache"):
        Conversion(weights)()


def folders():
    return {path.name for path in default_models_dir().iterdir() if path.is_dir()}


def test_what_a_killed_conversion_left_goes_with_the_next(weights):
    conversion = Conversion(weights)
    conversion("a")
    (entry,) = folders()
    left = [default_models_dir() / f".making-{name}" for name in (entry, "f" * 32)]
    for folder in left:
        folder.mkdir()
        (folder / "half").write_text("half")
    with FileLock(default_models_dir() / f"{'f' * 32}.lock"):  # somebody is at work on this one
        conversion("b")
        assert len(folders()) == 3
    conversion("c")
    assert not any(name.startswith(".making-") for name in folders())


def test_what_was_calibrated_is_not_let_go(weights, monkeypatch):
    conversion = Conversion(weights)
    conversion("a")
    (entry,) = folders()
    (default_models_dir() / entry / "calibration.safetensors").write_text("took pictures")
    os.utime(default_models_dir() / entry, (1000, 1000))
    monkeypatch.setattr(converted, "MAX_BYTES", 1)
    conversion("b"), conversion("c")
    assert entry in folders()
    assert len(folders()) == 2
