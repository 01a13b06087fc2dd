from pathlib import Path

import pytest

from vitreous.data.remote import name_of


@pytest.mark.parametrize(
    ("source", "name"),
    [("faces", "faces"), ("tables/faces.csv", "faces"), ("a/b/..", "a"), ("a/.", "a")],
)
def test_a_source_has_a_name_that_a_folder_can_have(source, name):
    assert name_of(Path(source)) == name


def test_what_lies_above_has_a_name_too(monkeypatch, tmp_path):
    (tmp_path / "faces" / "happy").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "faces" / "happy")
    assert name_of(Path("..")) == "faces"
    assert name_of(Path()) == "happy"
