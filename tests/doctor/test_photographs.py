"""Real photographs, where they lie beside the repository."""

from pathlib import Path

import pytest

from tests.doctor.planting import folder_hash
from vitreous.doctor.checkup import check_source

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_flowers_leak_where_they_are_known_to_and_raise_few_alarms():
    flowers = DATA / "flowers"
    if not flowers.is_dir():
        pytest.skip("no ../shared/data/flowers beside the repository: real photographs lie there")
    before = folder_hash(flowers)
    checkup = check_source(flowers)
    exact = [
        f for f in checkup.findings if f.kind == "leak" and f.detail.endswith("the same pixels")
    ]
    assert len(exact) == 2
    bad = [finding for finding in checkup.findings if finding.severity != "note"]
    assert len({path for finding in bad for path in finding.files}) < 0.02 * 3119
    assert folder_hash(flowers) == before


def test_a_thousand_different_photographs_are_no_copies(tmp_path):
    photographs = DATA / "imagenet-1000"
    if not photographs.is_dir():
        pytest.skip("no ../shared/data/imagenet-1000 beside the repository: photographs lie there")
    rows = [f"{path},{number % 2}" for number, path in enumerate(sorted(photographs.iterdir()))]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]))
    checkup = check_source(tmp_path / "table.csv")
    assert sum(checkup.pictures.values()) == 1000
    assert {finding.kind for finding in checkup.findings} <= {"tiny", "odd_size"}
