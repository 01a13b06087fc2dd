import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitreous.core.files import (
    METADATA_KEY,
    atomic_path,
    first_free,
    new_folder,
    read_json,
    read_metadata,
    read_tensors,
    remove_unfinished,
    write_json,
    write_safetensors,
    write_tensors,
    write_text,
)
from vitreous.errors import RunError, StorageError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail_half_way():
        with atomic_path(path) as staging:
            staging.write_text("half of the new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a"

    def fail_half_way():
        with new_folder(path) as staging:
            write_text(staging / "half.txt", "half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert list(path.parent.iterdir()) == []
    with new_folder(path) as staging:
        write_text(staging / "whole.txt", "whole")
        assert not path.exists()
    (tmp_path / "plain").mkdir()
    with new_folder(tmp_path / "plain") as staging:  # an empty one gives way
        write_text(staging / "whole.txt", "whole")
    assert [file.name for file in (tmp_path / "plain").iterdir()] == ["whole.txt"]
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(StorageError, match="can't write"), new_folder(path) as staging:
        write_text(staging / "other.txt", "other")
    assert [file.name for file in path.iterdir()] == ["whole.txt"]
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.zeros(3)}, {})
    script = f"""
import resource, signal, torch
from pathlib import Path
from vitreous.core.files import write_tensors
from vitreous.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_tensors(Path({str(path)!r}), {{"a": torch.zeros(10_000)}}, {{}})
except StorageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert f"can't write {path}" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert read_tensors(path)[0]["a"].shape == (3,)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(StorageError, match="can't write"):
        write_text(tmp_path / "gone" / "a.txt", "x")


def test_equal_tensors_make_equal_files(tmp_path):
    tensors = {"b": torch.arange(4.0), "a": torch.ones(2, 3).t()}
    write_tensors(tmp_path / "1", tensors, {"x": 1, "y": "ü"})
    write_tensors(tmp_path / "2", dict(reversed(tensors.items())), {"y": "ü", "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    back, metadata = read_tensors(tmp_path / "1")
    assert metadata == {"x": 1, "y": "ü"}
    assert torch.equal(back["a"], tensors["a"])


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "{"])
def test_words_that_are_no_mapping_are_damage(tmp_path, text):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"a": torch.zeros(3)}, {METADATA_KEY: text})
    for read in (read_tensors, read_metadata):
        with pytest.raises(RunError, match=r"w\.safetensors is damaged or not a file of vitreous"):
            read(path)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "foreign"])
def test_a_damaged_file_is_named(tmp_path, damage):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.zeros(100)}, {})
    contents = {"cut": path.read_bytes()[:200], "text": b"hello", "empty": b""}
    if damage == "foreign":
        save_file({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(RunError, match=r"w\.safetensors is damaged or not a file of vitreous"):
        read_tensors(path)


def test_new_files_have_the_usual_permissions(tmp_path):
    write_text(tmp_path / "atomic", "x")
    write_tensors(tmp_path / "tensors", {"a": torch.zeros(3)}, {})
    Path(tmp_path / "plain").write_text("x")
    for name in ("atomic", "tensors"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_a_checksum_covers_values_shapes_and_words(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    some = torch.arange(12).to(dtype).reshape(3, 4).t()
    tensors = {"a": some, "b": torch.ones(()), "c": torch.ones(0)}
    write_tensors(path, tensors, {"step": 12, "loss": float("nan")}, checksum=True)
    back, metadata = read_tensors(path)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    assert metadata["step"] == 12
    content = path.read_bytes()
    for old, new in ((b"[4,3]", b"[3,4]"), (b'\\"step\\": 12', b'\\"step\\": 13')):
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        with pytest.raises(RunError, match="don't fit its checksum"):
            read_tensors(path)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    script = f"""
import os
from pathlib import Path
from vitreous.core.files import atomic_path
with atomic_path(Path({str(tmp_path)!r}) / "inner" / "a.txt") as staging:
    staging.write_text("half")
    os._exit(0)
"""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / ".a.txt").write_text("mine")
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(list((tmp_path / "inner").iterdir())) == 2
    remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "inner").iterdir()] == [".a.txt"]


def test_damaged_json_is_named(tmp_path):
    for text in ("{", "[" * 100_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(RunError, match=r"a\.json"):
            read_json(tmp_path / "a.json")


def test_a_free_name_is_numbered_behind_its_stem(tmp_path):
    path = tmp_path / "photo"
    assert first_free(path, ".png") == tmp_path / "photo.png"
    (tmp_path / "photo.png").touch()
    assert first_free(path, ".png") == tmp_path / "photo-2.png"
    (tmp_path / "photo-2.png").symlink_to(tmp_path / "nowhere")  # writing would follow it
    assert first_free(path, ".png") == tmp_path / "photo-3.png"
    assert first_free(path) == path
    folder = tmp_path / "faces_v1.2"
    folder.mkdir()
    assert first_free(folder) == tmp_path / "faces_v1.2-2"


def test_json_holds_a_path_that_is_no_utf8(tmp_path):
    path = tmp_path / "a.json"
    value = {"file": os.fsdecode(b"L\xf6we.png"), "name": "Löwe"}
    write_json(path, value)
    assert read_json(path) == value
    assert "Löwe" in path.read_text(encoding="utf-8")
