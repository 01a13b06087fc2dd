from collections import Counter

import numpy as np
import pytest

from vitreous.data.config import DataConfig
from vitreous.data.dataset import Dataset, open_dataset
from vitreous.data.folder import list_labelled
from vitreous.data.folds import fold_datasets
from vitreous.data.preprocess import Preprocess
from vitreous.errors import DataError


@pytest.fixture
def opened(tmp_path):
    def open_source(source, **settings) -> Dataset:
        config = DataConfig(str(source), cache_dir=str(tmp_path / "cache"), **settings)
        return open_dataset(list_labelled(source), config, Preprocess(image_size=(8, 8)), 0)

    return open_source


def test_every_picture_is_held_out_once_and_chooses_nothing_there(tmp_path, class_folder, opened):
    dataset = opened(class_folder(tmp_path / "pictures", {"ant": 30, "bee": 20}))
    folds = fold_datasets(dataset, 5, repeat=0, seed=0)
    held_out = [path for fold in folds for path in fold.sets["test"].paths]
    assert sorted(held_out) == sorted(sample.path for sample in dataset.listing.samples)
    for fold in folds:
        assert set(fold.sets) == {"train", "valid", "test"}
        sides = [set(part.paths) for part in fold.sets.values()]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 50
        assert Counter(fold.sets["test"].labels.tolist()) == {0: 6, 1: 4}
        assert Counter(fold.sets["valid"].labels.tolist()) == {0: 5, 1: 3}
        samples = [dataset.listing.samples[row].path for row in fold.sets["test"].rows]
        assert tuple(samples) == fold.sets["test"].paths


def test_repeats_divide_otherwise_and_seeds_repeat(tmp_path, class_folder, opened):
    dataset = opened(class_folder(tmp_path / "pictures", {"ant": 30, "bee": 20}))
    first, second, again = (
        [fold.splits for fold in fold_datasets(dataset, 3, repeat, seed=0)] for repeat in (0, 1, 0)
    )
    assert first == again
    assert first != second


def test_groups_and_copies_stay_together(tmp_path, class_folder, opened):
    root = class_folder(tmp_path / "pictures", {"ant": 24, "bee": 24})
    pictures = sorted(root.rglob("*.png"))
    pictures[1].write_bytes(pictures[0].read_bytes())
    rows = [f"{path},{path.parent.name},person{at // 3}" for at, path in enumerate(pictures)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,group", *rows, ""]))
    dataset = opened(table)
    for fold in fold_datasets(dataset, 4, repeat=0, seed=0):
        sides = {}
        for sample, split in zip(dataset.listing.samples, fold.splits, strict=True):
            sides.setdefault(sample.group, set()).add(split)
        assert all(len(side) == 1 for side in sides.values())
        assert Counter(fold.sets["test"].labels.tolist()) == {0: 6, 1: 6}


def test_test_and_calibration_pictures_are_in_no_fold(tmp_path, class_folder, opened):
    for seed, split in enumerate(("train", "valid", "calibration", "test")):
        class_folder(tmp_path / "pictures" / split, {"ant": 6, "bee": 6}, seed=seed)
    dataset = opened(tmp_path / "pictures")
    for fold in fold_datasets(dataset, 3, repeat=0, seed=0):
        used = {path.parts[-3] for part in fold.sets.values() for path in part.paths}
        assert used == {"train", "valid"}
        assert len(fold.sets["test"]) == 8
    held_out = np.concatenate([f.sets["test"].rows for f in fold_datasets(dataset, 3, 0, 0)])
    assert len(set(held_out)) == 24


def test_a_class_with_fewer_pictures_than_folds_is_named(tmp_path, class_folder, opened):
    dataset = opened(class_folder(tmp_path / "pictures", {"ant": 30, "bee": 4}))
    with pytest.raises(DataError, match="class 'bee' has 4 pictures"):
        fold_datasets(dataset, 5, repeat=0, seed=0)


@pytest.mark.parametrize(("few", "count"), [(2, 2), (3, 2)])
def test_no_advice_is_given_that_would_not_work(tmp_path, class_folder, opened, few, count):
    """Beside a fold a class has to have one picture to learn from and one to validate on."""
    dataset = opened(class_folder(tmp_path / "pictures", {"ant": 30, "bee": few}))
    with pytest.raises(DataError, match=f"for {count} folds: add pictures"):
        fold_datasets(dataset, count, repeat=0, seed=0)
    with pytest.raises(DataError, match="'bee'"):
        fold_datasets(dataset, 5, repeat=0, seed=0)


def test_the_folds_advised_work(tmp_path, class_folder, opened):
    dataset = opened(class_folder(tmp_path / "pictures", {"ant": 30, "bee": 3}))
    with pytest.raises(DataError, match="take 3 folds at most"):
        fold_datasets(dataset, 5, repeat=0, seed=0)
    assert len(fold_datasets(dataset, 3, repeat=0, seed=0)) == 3


def test_a_class_whose_groups_all_come_to_lie_in_one_fold_is_named(tmp_path, class_folder, opened):
    """Balancing four classes, each half in one large group, puts all groups of a fifth together."""
    root = class_folder(tmp_path / "pictures", {**dict.fromkeys("abcd", 6), "rare": 12})
    rare = iter(sorted(root.glob("rare/*.png")))
    rows = ["path,label,group"]
    for name in "abcd":
        for at, path in enumerate(sorted(root.glob(f"{name}/*.png"))):
            group = "large" if at < 3 else f"{name}{at}"
            rows.append(f"{path},{name},{group}")
            if group != "large":
                rows.append(f"{next(rare)},rare,{group}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join([*rows, ""]))
    dataset = opened(table)
    with pytest.raises(DataError, match="of 2 holds every picture of class 'rare'"):
        fold_datasets(dataset, 2, repeat=0, seed=0)
    assert len(fold_datasets(dataset, 3, repeat=0, seed=0)) == 3  # as advised
