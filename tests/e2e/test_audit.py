"""`vitreous audit`: wrong labels planted among drawn faces, found, shown and left out."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitreous as package
from tests.doctor.planting import folder_hash
from vitreous.core.files import read_json
from vitreous.data.faces import write_faces
from vitreous.data.overlay import Change, read_overlay, write_overlay

#: A class has a colour, so that a minute model learns it within seconds.
COLOURS = {"angry": (200, 60, 60), "happy": (230, 200, 60), "sad": (60, 90, 200)}
SMALL = ("--set", "train.learning_rate=8e-3", "--set", "train.batch_size=16",
         "--set", "model.depth=1", "--set", "model.embed_dim=32", "--set", "model.num_heads=2",
         "--set", "model.stem=[8,16,32]", "--set", "augment.affine_chance=0",
         "--set", "augment.color_chance=0")  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, set[Path]]:
    """A table of 120 faces, and the twelve of them whose labels are wrong."""
    folder = tmp_path_factory.mktemp("planted")
    files = write_faces(folder / "drawn", 40, size=32, seed=3)
    for file in files:
        image = Image.open(file).convert("RGB")
        paper = Image.new("RGB", image.size, COLOURS[file.parent.name])
        Image.blend(image, paper, 0.6).save(file)
    rng, labels = np.random.default_rng(0), {file: file.parent.name for file in files}
    wrong = {files[at] for at in rng.choice(len(files), len(files) // 10, replace=False)}
    for file in wrong:
        labels[file] = str(rng.choice([name for name in COLOURS if name != labels[file]]))
    with (folder / "faces.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(("path", "label"))
        rows.writerows((file.relative_to(folder), label) for file, label in labels.items())
    return folder / "faces.csv", wrong


@pytest.fixture(scope="module")
def audited(vitreous, planted, tmp_path_factory):
    """The audit of pictures that no run has learned from: where it was asked for, what was said."""
    place = tmp_path_factory.mktemp("audited")
    table, _ = planted
    before = folder_hash(table.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        result = vitreous("audit", table, "--folds", "3", "--epochs", "12", *SMALL)
    assert result.exit_code == 0, result.stderr
    assert folder_hash(table.parent) == before
    return place, result


def test_planted_errors_are_found_shown_and_proposed(audited, planted):
    place, result = audited
    table, wrong = planted
    changes = [change for _, change in read_overlay(place / "audits/faces/overlay.csv").changes]
    assert {change.action for change in changes} == {"drop"}
    found = [table.parent / change.path for change in changes]
    # A tenth of all pictures.
    assert len(wrong & set(found[:12])) >= 0.7 * len(wrong)
    page = (place / "audits" / "faces" / "index.html").read_text()
    assert page.count("<li class=") == len(changes)
    assert f"{len(changes)} of 120 labels are worth a look" in result.stdout
    assert changes[0].path in result.stdout
    assert f"vitreous train {table} --overlay audits/faces/overlay.csv" in result.stdout
    assert "next: vitreous audit" in result.stderr
    report = (place / "runs" / "faces" / "report.html").read_text()
    assert "Labels worth a look" in report
    assert f"{len(changes)} of 120 labels are worth a look" in report
    assert "/".join(found[0].parts[-2:]) in report


def test_json_of_the_run_and_nothing_else(vitreous, audited, planted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = audited[0] / "runs" / "faces"
    before = folder_hash(run)
    result = vitreous("audit", run, "--json")
    assert result.exit_code == 0, result.stderr
    assert folder_hash(run) == before
    assert not list(tmp_path.iterdir())
    found = json.loads(result.stdout)
    assert found["n"] == 120
    assert np.sum(found["noise"]) == pytest.approx(120, abs=0.1)
    expected = found["expected_errors"]
    off = np.sum(found["noise"]) - np.trace(found["noise"])
    assert expected["low"] < expected["value"] < expected["high"]
    assert expected["value"] == pytest.approx(off, abs=0.1)
    labels = {str(planted[0].parent / row["path"]): row["label"] for row in _rows(planted[0])}
    for rank, suspect in enumerate(found["suspects"], start=1):
        assert list(suspect) == [
            "file", "label", "suggested", "probability", "self_confidence", "rank"
        ]  # fmt: skip
        assert suspect["rank"] == rank
        assert suspect["label"] == labels[suspect["file"]] != suspect["suggested"]
        assert suspect["probability"] > suspect["self_confidence"]
    again = package.audit(run)
    assert [str(one.file) for one in again.suspects] == [one["file"] for one in found["suspects"]]
    assert again.page is None


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_leaves_them_out_and_the_next_audit_remembers(
    vitreous, audited, planted, tmp_path
):
    """What was changed for one run is proposed again by the audit of that run."""
    place, _ = audited
    proposal = [c for _, c in read_overlay(place / "audits/faces/overlay.csv").changes]
    kept = next(row["path"] for row in _rows(planted[0])
                if row["path"] not in {change.path for change in proposal})  # fmt: skip
    mine = [*proposal, Change(kept, "relabel", "sad", "looked at")]
    write_overlay(tmp_path / "mine.csv", mine)
    run = tmp_path / "run"
    words = ("--folds", "2", "--epochs", "1", *SMALL, "--overlay", tmp_path / "mine.csv")
    result = vitreous("train", planted[0], "--out", run, *words)
    assert result.exit_code == 0, result.stderr
    assert len(_rows(run / "split.csv")) == 120 - len(proposal)
    result = vitreous("audit", run, "--out", tmp_path / "page")
    assert result.exit_code == 0, result.stderr
    again = {change for _, change in read_overlay(tmp_path / "page" / "overlay.csv").changes}
    assert set(proposal) <= again
    assert any(change.path == kept for change in again)


def test_a_model_agrees_with_labels_that_it_has_learned(vitreous, planted, tmp_path):
    run = tmp_path / "run"
    assert vitreous("train", planted[0], "--out", run, "--epochs", "1", *SMALL).exit_code == 0
    result = vitreous("audit", run, "--out", tmp_path / "page")
    assert result.exit_code == 2
    assert f"{run} has no folds, and its model has learned the labels" in result.stderr
    assert not (tmp_path / "page").exists()


def test_folds_that_are_not_finished_say_so(vitreous, audited, tmp_path):
    run = shutil.copytree(audited[0] / "runs" / "faces", tmp_path / "run")
    (run / "folds.safetensors").unlink()
    result = vitreous("audit", run, "--json")
    assert result.exit_code == 2
    assert f"hasn't finished its folds: go on with it (vitreous train --resume {run})" in (
        result.stderr
    )


def test_other_labels_than_the_run_began_with_are_refused(vitreous, audited, planted, tmp_path):
    """A row of the answers would belong to another picture."""
    run = shutil.copytree(audited[0] / "runs" / "faces", tmp_path / "run")
    split = (run / "split.csv").read_text().splitlines()
    split[1], split[2] = split[2], split[1]
    (run / "split.csv").write_text("\n".join(split) + "\n")
    result = vitreous("audit", run, "--json")
    assert result.exit_code == 2
    assert f"{planted[0]} doesn't list the pictures and labels that {run} began with" in (
        result.stderr
    )


def test_a_picture_that_came_since_moves_no_row(vitreous, audited, planted):
    run, (table, wrong) = audited[0] / "runs" / "faces", planted
    known, before = vitreous("audit", run, "--json").stdout, table.read_text()
    added = shutil.copy(next(iter(wrong)), table.parent / "drawn" / "added.png")
    header, rest = before.split("\n", 1)
    try:
        table.write_text(f"{header}\ndrawn/added.png,sad\n{rest}")
        result = vitreous("audit", run, "--json")
    finally:
        table.write_text(before)
        added.unlink()
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads(known)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--epochs", "2"), "is a run, whose folds are settled already: name it alone"),
        (("--folds", "3"), "is a run, whose folds are settled already: name it alone"),
        (("--epochs", "2", "--budget", "2m"), "exclude each other"),
    ],
)
def test_what_a_run_has_settled_is_not_asked_again(vitreous, audited, words, said):
    result = vitreous("audit", audited[0] / "runs" / "faces", "--json", *words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_page_among_the_pictures_is_refused_before_training(
    vitreous, planted, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    drawn = planted[0].parent / "drawn"
    result = vitreous("audit", drawn, "--out", drawn / "audit", "--epochs", "1", *SMALL)
    assert result.exit_code == 2
    assert "lies among the pictures" in result.stderr
    assert not (drawn / "audit").exists()
    assert not list(tmp_path.iterdir())


def test_a_page_has_a_place_of_its_own(vitreous, audited, planted, tmp_path):
    """In the run's folder it may be; among the pictures, or where something stands, not."""
    run = shutil.copytree(audited[0] / "runs" / "faces", tmp_path / "run")
    assert vitreous("audit", run, "--out", run / "audit").exit_code == 0
    assert (run / "audit" / "index.html").exists()
    result = vitreous("audit", run, "--out", run / "audit")
    assert result.exit_code == 2
    assert "exists already" in result.stderr


def test_the_folds_answers_are_what_is_audited(audited):
    """Nothing is asked of a model again: the file of answers decides."""
    run = package.audit(audited[0] / "runs" / "faces")
    scores = read_json(run.run / "folds.json")
    assert run.errors.agreement.value == pytest.approx(
        scores["balanced_accuracy"]["interval"]["value"], abs=1e-3
    )
