"""Drawn faces that nothing is wrong with, and the same with one fault of each sort."""

import shutil
from pathlib import Path

import pytest

from tests.doctor.planting import (
    SIDE,
    Sick,
    copy_pictures,
    leave_behind,
    name_groups,
    spoil_files,
)
from vitreous.data.faces import write_faces
from vitreous.doctor.checkup import check_source


@pytest.fixture(scope="session")
def healthy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("healthy") / "faces"
    write_faces(folder / "train", {"angry": 50, "happy": 60, "sad": 50}, size=SIDE)
    write_faces(folder / "valid", 50, size=SIDE, seed=1)
    return folder


@pytest.fixture(scope="session")
def sick(healthy, tmp_path_factory) -> Sick:
    case = Sick(tmp_path_factory.mktemp("sick") / "faces")
    shutil.copytree(healthy, case.folder)
    for plant in (spoil_files, copy_pictures, name_groups, leave_behind):
        plant(case)
    case.checkup = check_source(case.folder)
    return case
