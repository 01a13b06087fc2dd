"""The doctor as a person calls it, and what training makes of its proposal."""

import csv
import json
import os
import shutil
import signal
import tomllib
from pathlib import Path

import pytest

import vitreous as package
from tests.doctor.planting import folder_hash
from vitreous.data.faces import write_faces
from vitreous.doctor import examine

FAST = ("--epochs", "1", "--set", "train.batch_size=8", "--set", "model.depth=1",
        "--set", "model.embed_dim=16", "--set", "model.num_heads=1",
        "--set", "model.stem=[4,8,16]")  # fmt: skip


@pytest.fixture
def spoiled(tmp_path) -> Path:
    """Drawn faces with an empty file, a copy, and one under two classes; no splits."""
    folder = write_faces(tmp_path / "faces", 12, size=32)[0].parents[1]
    (folder / "happy" / "00000.png").write_bytes(b"")
    shutil.copy(folder / "happy" / "00001.png", folder / "happy" / "00001 copy.png")
    shutil.copy(folder / "happy" / "00002.png", folder / "sad" / "other.png")
    return folder


def kinds(stdout: str) -> set[str]:
    return {finding["kind"] for finding in json.loads(stdout)["findings"]}


def test_json_and_nothing_else(vitreous, spoiled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = folder_hash(tmp_path)
    result = vitreous("check", spoiled, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == ["findings"]
    for finding in found["findings"]:
        assert list(finding) == ["kind", "files", "detail", "severity"]
    assert kinds(result.stdout) == {"empty", "label_conflict", "duplicate", "small_class"}
    assert folder_hash(tmp_path) == before


def test_a_summary_a_page_and_a_proposal(vitreous, spoiled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = folder_hash(spoiled)
    result = vitreous("check", spoiled)
    assert result.exit_code == 0
    assert folder_hash(spoiled) == before
    assert "2 errors, 1 warning, 3 notes in 38 pictures." in result.stdout
    assert "happy/00001 copy.png" in result.stdout
    assert f"vitreous train {spoiled} --overlay checks/faces/overlay.csv" in result.stdout
    assert (tmp_path / "checks" / "faces" / "index.html").read_text().startswith("<!doctype html>")
    with (tmp_path / "checks" / "faces" / "overlay.csv").open() as file:
        rows = [(row["path"], row["action"]) for row in csv.DictReader(file)]
    assert sorted(rows) == [
        ("happy/00000.png", "drop"),
        ("happy/00001.png", "drop"),
        ("happy/00002.png", "drop"),
        ("sad/other.png", "drop"),
    ]
    vitreous("check", spoiled)
    assert (tmp_path / "checks" / "faces-2" / "index.html").exists()


def test_the_status_says_what_was_asked(vitreous, spoiled, faces):
    for level, where, status in (
        ("error", spoiled, 1),
        ("warning", spoiled, 1),
        ("error", faces, 0),
        ("warning", faces, 0),
    ):
        assert vitreous("check", where, "--json", "--fail-on", level).exit_code == status
    (spoiled / "happy" / "00000.png").unlink()
    (spoiled / "sad" / "other.png").unlink()
    assert vitreous("check", spoiled, "--json", "--fail-on", "error").exit_code == 0
    assert vitreous("check", spoiled, "--json", "--fail-on", "warning").exit_code == 1


def test_mistakes_are_one_line(vitreous, spoiled, tmp_path, monkeypatch):
    inside = vitreous("check", spoiled, "--out", spoiled / "check")
    assert "lies among the pictures" in inside.stderr
    there = vitreous("check", spoiled, "--out", spoiled.parent)
    assert "exists already" in there.stderr
    table = spoiled / "faces.csv"
    table.write_text("path,label\nhappy/00001.png,happy\nsad/00001.png,sad\n")
    monkeypatch.chdir(spoiled)
    beside = vitreous("check", "faces.csv")
    assert "checks/faces lies among the pictures of faces.csv: name another --out" in beside.stderr
    assert not (spoiled / "checks").exists()
    gone = vitreous("check", tmp_path / "gone")
    assert "no folder or table at" in gone.stderr
    for result in (inside, there, beside, gone):
        assert result.exit_code == 2
        assert result.stdout == ""


def test_python_finds_the_same_and_writes_nothing_unasked(vitreous, spoiled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkup = package.check(spoiled)
    assert checkup.to_json() == json.loads(vitreous("check", spoiled, "--json").stdout)
    assert (checkup.page, checkup.overlay) == (None, None)
    assert {path.name for path in tmp_path.iterdir()} == {"faces"}
    written = package.check(spoiled, tmp_path / "out")
    assert written.page == tmp_path / "out" / "index.html"
    assert written.counts == checkup.counts


def test_ctrl_c_leaves_nothing_behind(vitreous, spoiled, tmp_path, monkeypatch):
    read, presses = examine.read_with_header, iter([signal.SIGINT])

    def interrupted(path: Path, cover: tuple[int, int]) -> object:
        # Once, as a person does: a second would fall into whatever the first one's way out is at.
        for number in presses:
            os.kill(os.getpid(), number)
        return read(path, cover)

    monkeypatch.setattr(examine, "read_with_header", interrupted)
    # Whatever an earlier test's library made of the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = vitreous("check", spoiled, "--out", tmp_path / "out")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert result.stderr.strip() == "stopped"
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_not_utf8(vitreous, spoiled, tmp_path):
    name = os.fsdecode(b"L\xf6we.png")
    (spoiled / "happy" / "00003.png").rename(spoiled / "happy" / name)
    shutil.copy(spoiled / "happy" / name, spoiled / "happy" / "A.png")
    result = vitreous("check", spoiled, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert b"L\xf6we.png,drop" in (tmp_path / "out" / "overlay.csv").read_bytes()
    again = json.loads(vitreous("check", spoiled, "--json").stdout)
    files = [file for finding in again["findings"] for file in finding["files"]]
    assert any("we.png" in file for file in files)
    trained = vitreous("train", spoiled, "--overlay", tmp_path / "out" / "overlay.csv",
                       "--out", tmp_path / "run", *FAST)  # fmt: skip
    assert trained.exit_code == 0, trained.stderr


def test_training_applies_the_proposal_and_keeps_it(vitreous, spoiled, tmp_path):
    overlay, run = tmp_path / "check" / "overlay.csv", tmp_path / "run"
    assert vitreous("check", spoiled, "--out", tmp_path / "check").exit_code == 0
    with overlay.open("a") as file:
        file.write("happy/00005.png,relabel,sad,by hand\nsad/00001.png,group,g,\n")
        file.write("sad/00002.png,group,g,\n")
    before = folder_hash(spoiled)
    result = vitreous("train", spoiled, "--overlay", overlay, "--out", run, *FAST)
    assert result.exit_code == 0, result.stderr
    assert "overlay: 4 dropped, 1 relabelled, 2 grouped" in result.stderr
    with (run / "split.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 38 - 4
    assert not {str(spoiled / "happy" / f"0000{n}.png") for n in range(3)} & set(rows)
    assert rows[str(spoiled / "happy" / "00005.png")]["label"] == "sad"
    grouped = [rows[str(spoiled / "sad" / f"0000{n}.png")]["split"] for n in (1, 2)]
    assert grouped[0] == grouped[1]
    assert (run / "overlay.csv").read_text() == overlay.read_text()
    assert tomllib.loads((run / "config.toml").read_text())["data"]["overlay"] == str(
        run / "overlay.csv"
    )
    assert "4 dropped, 1 relabelled, 2 grouped" in (run / "report.html").read_text()
    # What was proposed may change or go: the run has its own.
    overlay.unlink()
    held_back = json.loads((run / "evaluation.json").read_text())
    assert json.loads(vitreous("evaluate", run, "--json").stdout)["n"] == held_back["n"]
    (run / "evaluation.json").unlink()
    moved = run.rename(tmp_path / "moved")
    assert vitreous("train", "--resume", moved).exit_code == 0
    assert json.loads((moved / "evaluation.json").read_text()) == held_back
    again = f"--config {moved / 'config.toml'} --overlay {moved / 'overlay.csv'} --out NEW_FOLDER"
    assert again in (moved / "report.html").read_text()
    assert folder_hash(spoiled) == before


def test_a_class_that_the_overlay_drops_is_named(vitreous, spoiled, tmp_path):
    overlay = tmp_path / "overlay.csv"
    rows = [f"angry/{path.name},drop," for path in (spoiled / "angry").iterdir()]
    overlay.write_text("\n".join(["path,action,value", *rows]))
    words = ("--overlay", overlay, "--out", tmp_path / "run", *FAST)
    result = vitreous("train", spoiled, *words)
    assert result.exit_code == 0, result.stderr
    assert "drops every picture of class 'angry': no model will know it" in result.stderr


def test_training_tells_what_is_wrong_with_its_pictures(vitreous, spoiled, tmp_path):
    run = tmp_path / "run"
    result = vitreous("train", spoiled, "--out", run, *FAST)
    assert result.exit_code == 0, result.stderr
    assert "the pictures: 2 errors, 1 warning, 3 notes in 38 pictures." in result.stderr
    assert f"vitreous check {spoiled}" in result.stderr
    found = json.loads((run / "findings.json").read_text())
    assert kinds(json.dumps(found)) == kinds(vitreous("check", spoiled, "--json").stdout)
    report = (run / "report.html").read_text()
    assert "The same picture under two classes" in report
    # A report that is made again still has it, and looking can be turned off.
    (run / "report.html").unlink()
    assert vitreous("train", "--resume", run).exit_code == 0
    assert "The same picture under two classes" in (run / "report.html").read_text()
    quiet = ("--out", tmp_path / "quiet", "--set", "data.check=false")
    assert "the pictures:" not in vitreous("train", spoiled, *quiet, *FAST).stderr
    assert not (tmp_path / "quiet" / "findings.json").exists()
    assert "The pictures it was given" not in (tmp_path / "quiet" / "report.html").read_text()


def test_a_config_brings_its_overlay_along(vitreous, spoiled, tmp_path):
    (tmp_path / "overlay.csv").write_text("path,action,value\nhappy/00000.png,drop,\n")
    named = ("--set", f"data.overlay={tmp_path / 'overlay.csv'}")
    first = vitreous("train", spoiled, "--out", tmp_path / "a", *FAST, *named)
    assert first.exit_code == 0, first.stderr
    (tmp_path / "overlay.csv").unlink()
    config = tmp_path / "a" / "config.toml"
    again = vitreous("train", spoiled, "--config", config, "--out", tmp_path / "b")
    assert again.exit_code == 0, again.stderr
    weights = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    assert "overlay: 1 dropped" in again.stderr


def test_an_overlay_that_does_not_fit_is_refused(vitreous, spoiled, tmp_path):
    overlay, run = tmp_path / "overlay.csv", tmp_path / "run"
    overlay.write_text("path,action,value,reason\nhappy/00001.png,drop,,\nhappy/x.png,drop,,\n")
    result = vitreous("train", spoiled, "--overlay", overlay, "--out", run, *FAST)
    assert result.exit_code == 2
    assert f"{overlay}, line 3: no picture 'happy/x.png'" in result.stderr
    assert not run.exists()
    pretrained = vitreous(
        "pretrain", spoiled, "--out", run, "--epochs", "1", "--set", f"data.overlay={overlay}"
    )
    assert pretrained.exit_code == 2
    assert "data.overlay has no effect in pretraining" in pretrained.stderr
    resumed = vitreous("train", "--resume", tmp_path, "--overlay", overlay)
    assert "--overlay can't change a run that has begun" in resumed.stderr


def test_help_says_what_the_status_means(vitreous):
    text = " ".join(vitreous("check", "--help").stdout.split())
    assert "exit status is 0 whether or not there are findings" in text
    assert "status 1 where such findings" in text
