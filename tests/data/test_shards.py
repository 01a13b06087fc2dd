"""Packing and reading shards, held against the libraries whose files they are."""

import csv
import io
import json
import multiprocessing
import os
import shutil
import tarfile
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from vitreous.core.console import Console
from vitreous.data import packing
from vitreous.data.decode import read_picture, read_size
from vitreous.data.folder import list_labelled, list_unlabelled
from vitreous.data.packing import pack
from vitreous.data.preprocess import Preprocess, fit
from vitreous.data.shards import entry_of, find_shards
from vitreous.errors import DataError, RunError, UnreadablePicture

QUIET = Console(quiet=True)
#: Of the folders below: several shards of each.
SHARD_MB = 0.004


@pytest.fixture
def faces(class_folder, tmp_path):
    class_folder(tmp_path / "faces" / "train", {"cat": 30, "dog": 24})
    class_folder(tmp_path / "faces" / "test", {"cat": 6, "dog": 7}, seed=1)
    return tmp_path / "faces"


def packed(source, out, **options):
    return pack(source, out, shard_mb=SHARD_MB, console=QUIET, **options)


def contents(listing):
    """Of each picture its bytes, class and split, in an order of their own."""
    return sorted(
        (read_picture(sample.path).tobytes(), sample.label, sample.split)
        for sample in listing.samples
    )


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_what_is_packed_is_listed_as_the_folder_is(form, faces, snapshot, tmp_path):
    before = snapshot(faces)
    found = packed(faces, tmp_path / "shards", form=form)
    assert len(found.index["shards"]) > 4
    assert snapshot(faces) == before
    listing = list_labelled(tmp_path / "shards")
    assert listing.classes == ("cat", "dog")
    assert contents(listing) == contents(list_labelled(faces))
    assert found.index["counts"] == {
        "train": {"cat": 30, "dog": 24},
        "test": {"cat": 6, "dog": 7},
    }
    assert all(read_size(sample.path) == (12, 12) for sample in listing.samples[:3])


def test_webdataset_reads_the_tars(faces, tmp_path):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    packed(faces, tmp_path / "shards")
    urls = sorted(map(str, (tmp_path / "shards").glob("test-*.tar")))
    rows = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False))
    originals = {
        path.relative_to(faces).as_posix(): path.read_bytes()
        for path in (faces / "test").rglob("*.png")
    }
    assert len(rows) == len(originals) == 13
    for row in rows:
        told = json.loads(row["json"])
        assert row["png"] == originals[told["file"]]
        assert ("cat", "dog")[int(row["cls"])] == told["label"] == told["file"].split("/")[1]


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_hugging_face_datasets_reads_both(form, faces, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    packed(faces, tmp_path / "shards", form=form)
    suffix, builder = {"tar": ("tar", "webdataset"), "parquet": ("parquet", "parquet")}[form]
    files = {
        split: sorted(map(str, (tmp_path / "shards").glob(f"{split}-*.{suffix}")))
        for split in ("train", "test")
    }
    found = datasets.load_dataset(builder, data_files=files, cache_dir=str(tmp_path / "hf"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 54, "test": 13}
    column, label = ("png", "cls") if form == "tar" else ("image", "label")
    for row in found["test"]:
        name = row["json"]["file"] if form == "tar" else None
        picture = np.asarray(row[column])
        if name:
            assert np.array_equal(picture, np.asarray(Image.open(faces / name)))
    if form == "parquet":
        assert found["test"].features["label"].names == ["cat", "dog"]
        ours = sorted(read_picture(s.path).tobytes() for s in list_labelled(faces).samples
                      if s.split == "test")  # fmt: skip
        assert sorted(np.asarray(row["image"]).tobytes() for row in found["test"]) == ours
    assert sorted(row[label] for row in found["test"]) == [0] * 6 + [1] * 7


def test_tars_of_others_are_read_too(photo, tmp_path):
    """As WebDataset's own writer leaves them, with a number or with folders for classes."""
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    (tmp_path / "theirs").mkdir()
    pictures = [photo(10, 14, seed) for seed in range(6)]
    with wds.TarWriter(str(tmp_path / "theirs" / "train-0.tar")) as writer:
        for number, picture in enumerate(pictures):
            writer.write({"__key__": f"a/{number}", "png": picture, "cls": number % 2})
    listing = list_labelled(tmp_path / "theirs")
    assert [sample.label for sample in listing.samples] == ["0", "1"] * 3
    assert {sample.split for sample in listing.samples} == {"train"}
    for sample, picture in zip(listing.samples, pictures, strict=True):
        assert np.array_equal(read_picture(sample.path), picture)
    with tarfile.open(tmp_path / "folders.tar", "w") as tar:
        for number, picture in enumerate(pictures):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "png")
            member = tarfile.TarInfo(f"./{('cat', 'dog')[number % 2]}/{number}.png")
            member.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(member, buffer)
    assert list_labelled(tmp_path / "folders.tar").classes == ("cat", "dog")
    again = packed(tmp_path / "folders.tar", tmp_path / "again")
    assert again.index["pictures"] == 6
    assert contents(list_labelled(tmp_path / "again")) == contents(
        list_labelled(tmp_path / "folders.tar")
    )


def tar_of(path, names, photo):
    """As `tar` makes it of a folder; each picture another."""
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(names):
            buffer = io.BytesIO()
            Image.fromarray(photo(10, 14, number)).save(buffer, "png")
            member = tarfile.TarInfo(name)
            member.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(member, buffer)
    return path


def test_a_tar_of_a_folder_is_divided_as_the_folder_is(photo, tmp_path):
    names = ("f/train/cat/1.png", "f/train/dog/2.png", "f/test/cat/3.png", "f/valid/dog/4.png")
    samples = list_labelled(tar_of(tmp_path / "faces.tar", names, photo)).samples
    assert [sample.split for sample in samples] == ["train", "train", "test", "valid"]
    assert [sample.label for sample in samples] == ["cat", "dog", "cat", "dog"]
    # A class may be called as a split is.
    classes = tar_of(tmp_path / "vehicles.tar", ("v/train/1.png", "v/plane/2.png"), photo)
    listing = list_labelled(classes)
    assert listing.classes == ("plane", "train")
    assert {sample.split for sample in listing.samples} == {None}


def test_names_with_dots_in_them_are_pictures_of_their_own(photo, tmp_path):
    names = [f"cat/Screenshot at 12.00.{n:02}.png" for n in range(3)] + ["dog/1.png"]
    samples = list_labelled(tar_of(tmp_path / "a.tar", names, photo)).samples
    assert [sample.path.name for sample in samples] == [name.split("/")[1] for name in names]
    for number, sample in enumerate(samples):
        assert np.array_equal(read_picture(sample.path), photo(10, 14, number))


def test_a_folder_of_pictures_stays_one_whatever_else_lies_there(faces, photo, tmp_path):
    folder = tmp_path / "mixed"
    packed(faces, folder)
    for path in folder.glob("*.tar"):
        path.rename(folder / path.name.upper().replace("TAR", "tar"))
    for number in range(3):
        Image.fromarray(photo(10, 14, number)).save(folder / f"{number}.png")
    for text in ("{", "[]", '{"format": "of somebody else"}'):
        (folder / "index.json").write_text(text)
        assert find_shards(folder) == ()
        assert len(list_unlabelled(folder).samples) == 3


def write_tar(path, name, data, **header):
    """One member and its picture, under headers that may say anything."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.size, member.pax_headers = len(data), header
        tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("name", "data", "header"),
    [
        ("a.json", b"{" * 2_000_000, {}),
        ("a.json", b"[" * 100_000, {}),
        ("a.png", b"x", {"GNU.sparse.size": "100000000000", "GNU.sparse.map": "0,1"}),
    ],
    ids=["large label", "deep label", "sparse"],
)
def test_a_tar_that_asks_for_memory_is_refused(name, data, header, tmp_path):
    write_tar(tmp_path / "train.tar", name, data, **header)
    if name == "a.json":  # what it says is asked for where there is a picture
        with tarfile.open(tmp_path / "train.tar", "a") as tar:
            tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(DataError, match="no tar of pictures"):
        list_labelled(tmp_path / "train.tar")


def test_shards_packed_anew_in_the_same_place_are_read_anew(class_folder, tmp_path):
    for seed in (0, 1):
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
        class_folder(tmp_path / str(seed), {"cat": 3, "dog": 3}, seed=seed)
        packed(tmp_path / str(seed), tmp_path / "shards")
        found = contents(list_labelled(tmp_path / "shards"))
        assert found == contents(list_labelled(tmp_path / str(seed)))


def test_patterns_name_shards(faces, tmp_path):
    packed(faces, tmp_path / "shards")
    some = tmp_path / "shards" / "train-{000001..000002}.tar"
    assert [path.name for path in find_shards(some)] == ["train-000001.tar", "train-000002.tar"]
    every = find_shards(tmp_path / "shards" / "train-*.tar")
    assert len(every) == len(list((tmp_path / "shards").glob("train-*.tar")))
    with pytest.raises(DataError, match="no shards"):
        find_shards(tmp_path / "shards" / "no-*.tar")


def test_a_size_is_fitted_and_unreadable_pictures_are_left_out(faces, tmp_path):
    (faces / "train" / "cat" / "000.png").write_bytes(b"\x89PNG broken")
    (faces / "train" / "dog" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    found = packed(faces, tmp_path / "shards", size=5)
    assert found.index["pictures"] == 66
    assert sorted(file for file, _ in found.index["unreadable"]) == [
        "train/cat/000.png",
        "train/dog/lost.png",
    ]
    expected = sorted(
        fit(read_picture(path, cover=(5, 5)), Preprocess((5, 5))).tobytes()
        for path in (faces / "test").rglob("*.png")
    )
    samples = list_labelled(tmp_path / "shards").samples
    ours = sorted(read_picture(s.path).tobytes() for s in samples if s.split == "test")
    assert ours == expected


def test_a_picture_without_an_ending_gets_one(class_folder, photo, tmp_path):
    (tmp_path / "abc").write_bytes(b"")
    Image.fromarray(photo(8, 8)).save(tmp_path / "abc", "jpeg")
    long = tmp_path / f"b.jpg?token={'x' * 120}"
    Image.fromarray(photo(8, 8, 1)).save(long, "png")
    (tmp_path / "t.csv").write_text(f"path,label\nabc,cat\n{long.name},dog\n")
    packed(tmp_path / "t.csv", tmp_path / "shards")
    names = {sample.path.suffix for sample in list_labelled(tmp_path / "shards").samples}
    assert names == {".jpeg", ".png"}


def test_what_can_not_be_read_now_is_not_left_out_for_ever(faces, tmp_path, monkeypatch):
    real, asked = packing.read_with_header, []

    def stale(path, cover=None):
        asked.append(path)
        if len(asked) == 40:
            raise UnreadablePicture("can't be read: Stale file handle", passing=True)
        return real(path, cover)

    monkeypatch.setattr(packing, "read_with_header", stale)
    with pytest.raises(DataError, match="Stale file handle: start again when it can"):
        packed(faces, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
    assert packed(faces, tmp_path / "shards").index["pictures"] == 67


def test_pictures_none_of_which_can_be_read_are_no_shards(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\nhappy\\1.jpg,happy\nsad\\2.jpg,sad\n")
    with pytest.raises(DataError, match=r"none of the pictures can be read, such as happy\\1.jpg"):
        packed(tmp_path / "t.csv", tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_groups_and_votes_are_kept(class_folder, tmp_path):
    folder = class_folder(tmp_path / "faces", {"cat": 4, "dog": 4})
    rows = [
        {"path": str(path), "label": path.parent.name, "group": f"person {number % 3}",
         "votes_cat": number, "votes_dog": 1}
        for number, path in enumerate(sorted(folder.rglob("*.png")))
    ]  # fmt: skip
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    packed(tmp_path / "table.csv", tmp_path / "shards")
    told = [
        (s.label, s.group, dict(s.votes)) for s in list_labelled(tmp_path / "table.csv").samples
    ]
    kept = [(s.label, s.group, dict(s.votes)) for s in list_labelled(tmp_path / "shards").samples]
    key = str
    assert sorted(kept, key=key) == sorted(told, key=key)


def test_pictures_without_labels_are_packed_for_pretraining(faces, tmp_path):
    packed(faces / "train", tmp_path / "shards", labelled=False)
    assert len(list_unlabelled(tmp_path / "shards").samples) == 54
    with pytest.raises(DataError, match="no class"):
        list_labelled(tmp_path / "shards")


def die_after(faces, out, count):
    """Pack, and die when the shard of this number is written, before it is renamed."""
    written = []
    atomic = packing.atomic_path

    @contextmanager
    def dying(path):
        written.append(path)
        with atomic(path) as staging:
            yield staging
            if len([one for one in written if one.suffix == ".tar"]) > count:
                os._exit(9)

    packing.atomic_path = dying
    packed(faces, out)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is how a death is played")
def test_packing_that_died_goes_on_and_ends_the_same(faces, tmp_path):
    packed(faces, tmp_path / "whole")
    child = multiprocessing.get_context("fork").Process(
        target=die_after, args=(faces, tmp_path / "shards", 3)
    )
    child.start()
    child.join()
    assert child.exitcode == 9
    assert not (tmp_path / "shards").exists()
    left = tmp_path / ".shards-packing"
    stamps = {path.name: path.stat().st_mtime_ns for path in left.glob("*.tar")}
    assert len(stamps) == 3
    assert [path.name for path in left.rglob("*.tar") if path.parent != left]  # the half one
    packed(faces, tmp_path / "shards")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == whole
    assert not left.exists()
    for name, stamp in stamps.items():
        assert (tmp_path / "shards" / name).stat().st_mtime_ns == stamp
    with pytest.raises(RunError, match="exists already"):
        packed(faces, tmp_path / "shards")


def test_other_pictures_are_not_mixed_with_what_was_left(faces, tmp_path):
    left = tmp_path / ".shards-packing"
    left.mkdir()
    (left / ".plan").write_text("of something else")
    (left / "train-000099.tar").write_bytes(b"old")
    found = packed(faces, tmp_path / "shards")
    assert not (tmp_path / "shards" / "train-000099.tar").exists()
    assert found.index["pictures"] == 67


def test_a_changed_shard_is_told(faces, tmp_path):
    packed(faces, tmp_path / "shards")
    sample = list_labelled(tmp_path / "shards").samples[0]
    shard, entry = sample.path.parent, entry_of(sample.path)
    data = bytearray(shard.read_bytes())
    data[entry.offset + entry.size // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match="damaged or was changed"):
        read_picture(sample.path)
    shard.unlink()
    with pytest.raises(DataError, match="is missing: copy it too"):
        list_labelled(tmp_path / "shards")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"format": "vitreous shards 9", "shards": []}', "vitreous shards 9"),
        ('{"format": "vitreous shards 1", "shards": [{"name": "../x.tar"}]}', "outside its folder"),
        ('{"format": "vitreous shards 1"}', "no index of shards"),
        ("{", "no index of shards"),
    ],
)
def test_a_bad_index_is_refused(index, message, faces, tmp_path):
    packed(faces, tmp_path / "shards")
    (tmp_path / "shards" / "index.json").write_text(index)
    with pytest.raises(DataError, match=message):
        list_labelled(tmp_path / "shards")


@pytest.mark.parametrize("outside", ["/etc/a.png", "../a.png", "x/../../a.png"])
def test_a_table_that_leads_out_of_its_shard_is_refused(outside, faces, tmp_path):
    packed(faces, tmp_path / "shards")
    table = min((tmp_path / "shards").glob("*.csv"))
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    rows[1][0] = f"{rows[1][0].partition('/')[0]}/{outside}"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    with pytest.raises(DataError, match=r"is damaged: .* would lie outside the shard"):
        list_labelled(tmp_path / "shards")


def test_names_with_line_ends_in_them_are_packed(class_folder, photo, tmp_path):
    class_folder(tmp_path / "f", {"cat": 3, "dog": 3})
    (tmp_path / "f" / "cat").rename(tmp_path / "f" / "ca\rt")
    packed(tmp_path / "f", tmp_path / "shards")
    listing = list_labelled(tmp_path / "shards")
    assert listing.classes == ("ca\rt", "dog")
    assert contents(listing) == contents(list_labelled(tmp_path / "f"))


@pytest.mark.parametrize("kind", ["a file for a folder", "links in a ring", "a name too long"])
def test_what_can_never_be_read_is_left_out(kind, faces, tmp_path):
    names = [str(sample.path) for sample in list_labelled(faces).samples]
    labels = [sample.label for sample in list_labelled(faces).samples]
    ring = faces / "train" / "cat" / "ring.png"
    ring.symlink_to(ring)
    names[3] = {"a file for a folder": f"{names[0]}/b.png", "links in a ring": str(ring),
                "a name too long": str(faces / f"{'x' * 300}.png")}[kind]  # fmt: skip
    table = tmp_path / "table.csv"
    rows = zip(names, labels, strict=True)
    table.write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    shards = packed(table, tmp_path / "shards")
    assert shards.index["pictures"] == len(names) - 1
