from importlib.util import find_spec
from pathlib import Path

import pytest

from vitreous.data.remote import name_of, read_remote
from vitreous.errors import DataError


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


@pytest.mark.parametrize(("scheme", "driver"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_what_a_kind_of_url_takes_beside_the_extra_is_named(scheme, driver):
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'vitreous[stream]'")
    if find_spec(driver):
        pytest.skip(f"{driver} is installed, and what is told is that it is missing")
    with pytest.raises(DataError, match=rf"pip install 'vitreous\[stream\]' {driver}$"):
        read_remote(Path(f"{scheme}://bucket/index.json"))
