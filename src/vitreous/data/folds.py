"""The same pictures divided several times, so that each is held out once."""

import math
import warnings

from vitreous.core.rng import derive_seed
from vitreous.data.dataset import Dataset, divided, joining_prints
from vitreous.data.split import assign_splits, link_pictures
from vitreous.errors import DataError


def fold_datasets(dataset: Dataset, count: int, repeat: int, seed: int) -> list[Dataset]:
    """Divide training and validation pictures into folds, each the test of the others.

    Folds are stratified; groups and exact duplicates stay on one side, but for blank pictures of
    several groups (scikit-learn's `StratifiedGroupKFold`). Of the other folds a fifth is for
    validation, which chooses the weights, so that the fold itself chooses nothing. Pictures for
    calibration and testing are in no fold.

    Args:
        dataset: as it was opened.
        count: folds, at least 2.
        repeat: draws other folds.
        seed: of the run.

    Returns:
        A dataset for each fold, with the sets "train", "valid" and "test".

    Raises:
        DataError: where a class has too few pictures or groups for so many folds, or all of it
            comes to lie in one.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    samples, errors = dataset.listing.samples, dataset.pixels.errors
    pool = [row for row, split in enumerate(dataset.splits)
            if split in ("train", "valid") and row not in errors]  # fmt: skip
    labels = [samples[row].label or "" for row in pool]
    groups = [samples[row].group for row in pool]
    prints = joining_prints(samples, dataset.pixels, pool)
    linked = link_pictures(groups, prints)
    for name in dataset.classes:
        parts = len({link for link, label in zip(linked, labels, strict=True) if label == name})
        # What is left beside a fold is learned from and validated on, so it takes two at least.
        if parts < count or parts - math.ceil(parts / count) < 2:
            fewer = f"take {parts} folds at most, or " if 3 <= parts < count else ""
            raise DataError(
                f"class '{name}' has {parts} pictures that can be told apart or groups, too few "
                f"for {count} folds: {fewer}add pictures"
            )
    state = derive_seed(seed, "folds", repeat) % 2**32
    # Where every picture stands alone this is the same, and takes no seconds.
    kind = StratifiedKFold if len(set(linked)) == len(linked) else StratifiedGroupKFold
    cut = kind(count, shuffle=True, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large groups may leave a class out of a fold
        folds = list(cut.split(labels, labels, linked))
    if not all(len(held_out) for _, held_out in folds):
        raise DataError(
            f"the groups of these pictures are too uneven for {count} folds, of which one is left "
            "empty: take fewer folds"
        )
    datasets = []
    for number, (beside, held_out) in enumerate(folds):
        if lacking := sorted(set(dataset.classes) - {labels[at] for at in beside}):
            raise DataError(
                f"fold {number + 1} of {count} holds every picture of class '{lacking[0]}', as its "
                "groups hold other classes too: take another number of folds"
            )
        named: list[str | None] = [None] * len(pool)
        for at in held_out:
            named[at] = "test"
        fold_seed = derive_seed(seed, "fold", repeat, number)
        mine = assign_splits(labels, named, groups, prints, fold_seed)
        splits = [""] * len(samples)
        for row, split in zip(pool, mine, strict=True):
            splits[row] = split
        datasets.append(divided(dataset.listing, splits, dataset.pixels))
    return datasets
