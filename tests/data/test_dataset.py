import csv
import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data.config import DataConfig
from vitreous.data.dataset import (
    Dataset,
    open_dataset,
    open_labelled,
    open_unlabelled,
    typical_side,
)
from vitreous.data.decode import read_picture
from vitreous.data.folder import Listing, list_labelled, list_unlabelled
from vitreous.data.preprocess import Preprocess, fit
from vitreous.data.table import Sample
from vitreous.errors import ConfigError, DataError, StorageError

SMALL = Preprocess(image_size=(8, 8))


@pytest.fixture
def opened(tmp_path):
    """Opens a folder or table with its cache beside it."""

    def open_source(source: Path, seed: int = 0, calibration_share: float = 0.0) -> Dataset:
        config = DataConfig(
            str(source), str(tmp_path / "cache"), calibration_share=calibration_share
        )
        return open_dataset(list_labelled(source), config, SMALL, seed)

    return open_source


def test_a_folder_of_classes_becomes_two_sets(tmp_path, class_folder, opened, snapshot):
    root = class_folder(tmp_path / "pictures", {"ant": 20, "bee": 10, "cat": 15})
    before = snapshot(root)
    dataset = opened(root)
    assert snapshot(root) == before
    assert dataset.classes == ("ant", "bee", "cat")
    assert set(dataset.sets) == {"train", "valid"}
    assert Counter(dataset.sets["valid"].labels.tolist()) == {0: 4, 1: 2, 2: 3}
    assert Counter(dataset.sets["train"].labels.tolist()) == {0: 16, 1: 8, 2: 12}
    seen = []
    for part in dataset.sets.values():
        pixels, labels = part.batch(np.arange(len(part)))
        for picture, label, path in zip(pixels, labels, part.paths, strict=True):
            assert dataset.classes[label] == path.parent.name
            assert np.array_equal(picture.numpy(), fit(read_picture(path), SMALL))
            seen.append(path)
    assert sorted(seen) == sorted(root.rglob("*.png"))
    assert dataset.unreadable == []


def test_named_splits_make_three_sets(tmp_path, class_folder, opened):
    for seed, split in enumerate(("train", "dev", "test")):
        class_folder(tmp_path / "p" / split, {"a": 2 + seed, "b": 3}, seed=seed)
    sets = opened(tmp_path / "p").sets
    assert {name: len(part) for name, part in sets.items()} == {"train": 5, "valid": 6, "test": 7}
    for name, folder in (("train", "train"), ("valid", "dev"), ("test", "test")):
        assert {path.parent.parent.name for path in sets[name].paths} == {folder}


def test_a_share_is_put_aside_for_calibration(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "pictures", {"ant": 40, "bee": 25})
    first = sorted((root / "ant").iterdir())
    for number in range(3):  # three copies of one picture stay on one side
        first[number].write_bytes(first[3].read_bytes())
    plain, dataset = opened(root), opened(root, calibration_share=0.25)
    assert list(dataset.sets) == ["train", "valid", "calibration"]
    # What chooses the weights is the same with it and without.
    assert dataset.sets["valid"].paths == plain.sets["valid"].paths
    left = Counter(plain.sets["train"].labels.tolist())
    aside = Counter(dataset.sets["calibration"].labels.tolist())
    assert aside == {label: round(count / 4) for label, count in left.items()}
    assert sum(map(len, dataset.sets.values())) == 65
    sides = {name for name, part in dataset.sets.items() if set(first[:4]) & set(part.paths)}
    assert len(sides) == 1
    assert opened(root, calibration_share=0.25).splits == dataset.splits
    assert "calibration" in dataset.split_table()


def test_calibration_pictures_that_are_named_are_taken(tmp_path, class_folder, opened):
    for seed, split in enumerate(("train", "valid", "calibration")):
        class_folder(tmp_path / "pictures" / split, {"ant": 6, "bee": 6}, seed=seed)
    for share in (0.0, 0.5):
        dataset = opened(tmp_path / "pictures", calibration_share=share)
        assert [len(dataset.sets[name]) for name in ("train", "valid", "calibration")] == [12] * 3


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_most_pictures_are_for_learning(share):
    with pytest.raises(ConfigError, match="calibration_share"):
        DataConfig("pictures", calibration_share=share)


def test_votes_become_shares_and_the_label_stands_in(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "p", {"a": 3, "b": 2})
    counts = {"a/0": (3, 1), "a/1": (0, 0), "a/2": (0, 4), "b/0": (1, 1), "b/1": (0, 9)}
    lines = [
        f"{path.relative_to(tmp_path)},{path.parent.name},{split},{{}},{{}},5"
        for split in ("train", "valid")
        for path in sorted(root.rglob("*.png"))
    ]
    rows = [line.format(*votes) for line, votes in zip(lines, 2 * [*counts.values()], strict=True)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["path,label,split,votes_a,votes_b,votes_c", *rows]))
    dataset = opened(table)
    shares = [[0.75, 0.25], [1, 0], [0, 1], [0.5, 0.5], [0, 1]]
    assert dataset.sets["train"].votes.tolist() == shares
    assert dataset.sets["train"].labels.tolist() == [0, 0, 0, 1, 1]
    table.write_text(table.read_text().replace("votes_b", "votes_bee"))
    other = opened(table)
    assert other.sets["train"].votes is None  # a name misspelt is not "no votes for b"
    assert other.fingerprint() != dataset.fingerprint()


def test_unreadable_files_are_listed_and_left_out(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "p", {"a": 10, "b": 10})
    bad = {root / "a" / "text.jpg": b"words", root / "b" / "zero.png": b""}
    for path, content in bad.items():
        path.write_bytes(content)
    whole = (root / "b" / "000.png").read_bytes()
    (root / "b" / "cut.png").write_bytes(whole[: len(whole) // 2])
    dataset = opened(root)
    assert {path.name for path, _ in dataset.unreadable} == {"text.jpg", "zero.png", "cut.png"}
    assert all(reason for _, reason in dataset.unreadable)
    paths = [path for part in dataset.sets.values() for path in part.paths]
    assert len(paths) == 20
    assert len(dataset.splits) == len(dataset.listing.samples) == 23


def test_exact_copies_stay_together_whatever_they_are_called(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "p", {"a": 10, "b": 10})
    for index in range(5):
        with Image.open(root / "a" / f"00{index}.png") as image:
            image.save(root / "a" / f"copy{index}.bmp")
            image.save(root / "a" / f"copy{index}.tif")
    for seed in range(4):
        dataset = opened(root, seed)
        split = {
            sample.path.name: name
            for sample, name in zip(dataset.listing.samples, dataset.splits, strict=True)
            if sample.label == "a"
        }
        for index in range(5):
            names = (f"00{index}.png", f"copy{index}.bmp", f"copy{index}.tif")
            assert len({split[name] for name in names}) == 1
        assert Counter(split.values())["valid"] == 4


def test_a_black_frame_in_every_video_joins_none(tmp_path, class_folder, opened):
    """Equal pictures that show something do; those of one video stay with it in any case."""
    root = class_folder(tmp_path / "p", {"a": 20, "b": 20})
    lines = ["path,label,group"]
    for name in "ab":
        for index in range(20):
            if index % 4 == 0:
                Image.new("RGB", (12, 12)).save(root / name / f"{index:03}.png")
            lines.append(f"{name}/{index:03}.png,{name},{name}{index // 4}")
    table = root / "t.csv"
    table.write_text("\n".join(lines))
    dataset = opened(table)
    assert {part: len(pictures) for part, pictures in dataset.sets.items()} == {
        "train": 32,
        "valid": 8,
    }
    same = (root / "a" / "001.png").read_bytes()
    for name in "ab":
        for index in range(1, 20, 4):
            (root / name / f"{index:03}.png").write_bytes(same)
    with pytest.raises(DataError, match="can't be divided"):
        opened(table)


def test_a_table_with_groups_and_a_missing_file(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "p", {"a": 12, "b": 12})
    lines = ["path,label,group"]
    for name in "ab":
        lines += [f"{name}/{index:03}.png,{name},{name}{index // 3}" for index in range(12)]
    (root / "t.csv").write_text("\n".join([*lines, "a/gone.png,a,a0"]))
    dataset = opened(root / "t.csv")
    assert dataset.unreadable == [(root / "a" / "gone.png", "no such file")]
    sides = {}
    for sample, split in zip(dataset.listing.samples, dataset.splits, strict=True):
        if sample.path.exists():
            sides.setdefault(sample.group, set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert len(dataset.sets["valid"]) == 6


def test_the_fingerprint_knows_the_pictures_not_the_place(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "p", {"a": 6, "b": 6})
    first = opened(root).fingerprint()
    assert opened(root).fingerprint() == first
    assert opened(root, seed=1).fingerprint() != first
    (tmp_path / "p").rename(tmp_path / "q")
    root = tmp_path / "q"
    assert opened(root).fingerprint() == first
    (root / "a").rename(root / "aa")
    assert opened(root).fingerprint() != first
    (root / "aa").rename(root / "a")
    Image.new("RGB", (5, 5)).save(root / "a" / "000.png")
    assert opened(root).fingerprint() != first


def test_the_split_table_names_every_picture(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "p", {'a "b", c': 5, "d": 5})
    (root / "d" / os.fsdecode(b"f\xfcnf.png")).write_bytes((root / "d" / "000.png").read_bytes())
    (root / "d" / "bad.png").write_bytes(b"")
    dataset = opened(root)
    text = dataset.split_table()
    text.encode()
    table = list(csv.DictReader(io.StringIO(text)))
    went = ["" if row in dataset.pixels.errors else one for row, one in enumerate(dataset.splits)]
    assert [row["split"] for row in table] == went
    assert went.count("") == 1  # what can't be read went nowhere
    assert [row["label"] for row in table] == [s.label for s in dataset.listing.samples]
    assert sum(Path(row["path"]).exists() for row in table) == 11
    assert f"{root}/d/f\\udcfcnf.png" in [row["path"] for row in table]


def refusal(opened, source: Path) -> str:
    with pytest.raises(DataError) as caught:
        opened(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_class_is_not_enough(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "p", {"only": 5})
    assert "single class 'only'" in refusal(opened, root)


def test_nothing_to_train_on(tmp_path, class_folder, opened):
    class_folder(tmp_path / "p" / "test", {"a": 3, "b": 3})
    assert "has no training pictures" in refusal(opened, tmp_path / "p")


def test_a_class_of_which_nothing_can_be_read(tmp_path, class_folder, opened):
    class_folder(tmp_path / "p" / "train", {"a": 3, "b": 3})
    class_folder(tmp_path / "p" / "valid", {"a": 3, "b": 3}, seed=1)
    for path in (tmp_path / "p" / "train" / "b").iterdir():
        path.write_bytes(b"")
    assert "class 'b' has no readable training picture" in refusal(opened, tmp_path / "p")


def test_validation_that_can_not_be_read_is_not_replaced(tmp_path, class_folder, opened):
    class_folder(tmp_path / "p" / "train", {"a": 9, "b": 9})
    class_folder(tmp_path / "p" / "valid", {"a": 1, "b": 1}, seed=1)
    for path in (tmp_path / "p" / "valid").rglob("*.png"):
        path.write_bytes(b"")
    assert "has no readable validation picture" in refusal(opened, tmp_path / "p")


def test_a_class_too_small_to_divide(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "p", {"a": 5, "b": 1})
    assert "has 1 picture of class 'b': it takes at least 2" in refusal(opened, root)
    for index in range(3):
        (root / "b" / f"copy{index}.png").write_bytes((root / "b" / "000.png").read_bytes())
    assert "class 'b' has 4 picture(s) that can't be divided" in refusal(opened, root)


def test_without_labels_a_few_are_held_back(tmp_path, class_folder):
    root = class_folder(tmp_path / "p", {"a": 30, "b": 30})
    (root / "copy.png").write_bytes((root / "a" / "000.png").read_bytes())
    (root / "bad.png").write_bytes(b"")
    config = DataConfig(str(root), cache_dir=str(tmp_path / "cache"))
    first, again, other = (
        open_unlabelled(list_unlabelled(root), config, SMALL, seed) for seed in (0, 0, 1)
    )
    assert {name: len(part) for name, part in first.sets.items()} == {"train": 58, "valid": 3}
    assert [path.name for path, _ in first.unreadable] == ["bad.png"]
    assert first.classes == ()
    assert set(first.sets["train"].labels.tolist()) == {-1}
    assert first.splits == again.splits != other.splits
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    twins = [first.splits[row] for row, s in enumerate(first.listing.samples)
             if s.path.name in ("000.png", "copy.png") and s.path.parent.name != "b"]  # fmt: skip
    assert len(twins) == 2
    assert len(set(twins)) == 1


def test_without_labels_two_pictures_are_the_least(tmp_path, class_folder):
    root = class_folder(tmp_path / "p", {"a": 1})
    (root / "copy.png").write_bytes((root / "a" / "000.png").read_bytes())
    config = DataConfig(str(root), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="the folder or table has 2 pict"):
        open_unlabelled(list_unlabelled(root), config, SMALL, 0)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="has no readable picture"):
        open_unlabelled(list_unlabelled(root), config, SMALL, 0)


def test_the_caches_limit_is_taken_from_the_settings(tmp_path, class_folder):
    root = class_folder(tmp_path / "p", {"a": 5, "b": 5})
    config = DataConfig(str(root), cache_dir=str(tmp_path / "cache"), max_cache_gb=1e-6)
    with pytest.raises(StorageError, match="max_cache_gb"):
        open_dataset(list_labelled(root), config, SMALL, 0)


def test_a_set_for_a_model_that_knows_its_classes(tmp_path, class_folder):
    root = class_folder(tmp_path / "p", {"b": 3, "d": 2})
    (root / "d" / "bad.png").write_bytes(b"")
    config = DataConfig(str(root), cache_dir=str(tmp_path / "cache"))
    part = open_labelled(list_labelled(root), ("a", "b", "c", "d"), config, SMALL)
    assert part.labels.tolist() == [1, 1, 1, 3, 3]
    assert [path.name for path, _ in part.unreadable] == ["bad.png"]
    with pytest.raises(DataError, match=r"class 'd' in .* is unknown to this model: it knows b, c"):
        open_labelled(list_labelled(root), ("b", "c"), config, SMALL)


def test_what_is_looked_at_once_needs_no_room_in_the_cache(tmp_path, class_folder):
    root = class_folder(tmp_path / "p", {"b": 3, "d": 2})
    (root / "d" / "bad.png").write_bytes(b"")
    listing, cache = list_labelled(root), str(tmp_path / "cache")
    roomy = open_labelled(listing, ("b", "d"), DataConfig(str(root), cache), SMALL)
    tight = DataConfig(str(root), str(tmp_path / "none"), max_cache_gb=1e-6)
    part = open_labelled(listing, ("b", "d"), tight, SMALL)
    assert not (tmp_path / "none").exists()
    for one, same in zip(part.batch(range(5)), roomy.batch(range(5)), strict=True):
        assert one.tolist() == same.tolist()
    assert part.unreadable == roomy.unreadable


def test_the_typical_side_is_the_median_of_the_shorter_ones(tmp_path):
    sizes = [(10, 50), (40, 20), (30, 30), (99, 70), (60, 100)]
    samples = []
    for index, size in enumerate(sizes):
        path = tmp_path / f"{index}.png"
        Image.new("L", size).save(path)
        samples.append(Sample(path, "a"))
    (tmp_path / "bad.png").write_bytes(b"x")
    listing = Listing((*samples, Sample(tmp_path / "bad.png", "a")), ("a",))
    assert typical_side(listing) == 30
    nothing = Listing((Sample(tmp_path / "bad.png", "a"), Sample(tmp_path / "gone", "a")), ("a",))
    with pytest.raises(DataError, match=r"none of the 2 pictures tried can be read, such as .*bad"):
        typical_side(nothing)
    gone = Listing((Sample(tmp_path / "gone.png", "a"),), ("a",))
    with pytest.raises(DataError, match=r"gone.png: no such file; the paths of a table count from"):
        typical_side(gone)


def test_no_readable_test_picture_is_told_before_training(tmp_path, class_folder, opened):
    source = tmp_path / "pictures"
    for seed, split in enumerate(("train", "valid", "test")):
        class_folder(source / split, {"ant": 4, "bee": 4}, seed=seed)
    for path in (source / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="has test pictures, but none that can be read"):
        opened(source)


def test_a_cache_without_a_limit(tmp_path, class_folder):
    source = class_folder(tmp_path / "pictures", {"ant": 6, "bee": 6})
    config = DataConfig(str(source), str(tmp_path / "cache"), max_cache_gb=float("inf"))
    assert len(open_dataset(list_labelled(source), config, SMALL, 0).splits) == 12
    with pytest.raises(ConfigError, match=r"data\.max_cache_gb is nan"):
        DataConfig(str(source), max_cache_gb=float("nan"))
