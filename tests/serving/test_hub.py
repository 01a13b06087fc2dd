import sys
from pathlib import Path

import pytest

from vitreous.core.console import Console
from vitreous.errors import ConfigError, RunError
from vitreous.serving.hub import HubId, Place, hub_id, locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("timm/vit_tiny.augreg_in1k", HubId("timm/vit_tiny.augreg_in1k", "main")),
        ("hf://timm/vit@v1.0", HubId("timm/vit", "v1.0")),
        ("hf-hub:timm/vit", HubId("timm/vit", "main")),
        (f"anna/b-c@{COMMIT}", HubId("anna/b-c", COMMIT)),
        ("anna/b@refs/pr/1", HubId("anna/b", "refs/pr/1")),
        # A name that ends like a file is one, unless it is marked.
        ("weights/vit.pth", None),
        ("hf://weights/vit.pth", HubId("weights/vit.pth", "main")),
        *((text, None) for text in ("vit", "vit.npz", "a/b/c", "../vit", "./vit", "/vit", "~/vit",
                                    "anna/b@", "C:\\a\\b", "anna/b@../../x", "näh/vit", "")),
    ],
)  # fmt: skip
def test_what_is_an_id(text, id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_id(text) == id
    if text:
        assert hub_id(Path(text)) == id  # has one slash behind "hf:"


@pytest.mark.parametrize("text", ["hf://", "hf://timm", "hf-hub:vit", "hf://a/b/c", "hf://a/b@"])
def test_a_mark_needs_an_id_behind_it(text):
    with pytest.raises(ConfigError, match="write hf://owner/name"):
        hub_id(text)


def test_an_id_reads_as_it_is_written():
    assert hub_id(str(HubId("timm/vit", COMMIT))) == HubId("timm/vit", COMMIT)


def test_a_path_needs_no_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "vit").touch()
    assert locate("timm/vit", Console()) == Place(Path("timm/vit"))
    with pytest.raises(RunError, match=r"timm/vti does not exist.*hf://owner/name"):
        locate("timm/vti", Console())
