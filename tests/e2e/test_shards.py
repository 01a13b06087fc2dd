"""Packing and training from shards, as a person asks for it."""

import json

import pytest

from vitreous.cli import _status, cli
from vitreous.core.files import read_json
from vitreous.data.cache import entry_bytes
from vitreous.data.faces import write_faces
from vitreous.data.preprocess import Preprocess
from vitreous.training.diary import Diary

SMALL = ["--epochs", "3", "--set", "model.depth=1", "--set", "model.embed_dim=16",
         "--set", "model.num_heads=1", "--set", "train.batch_size=8",
         "--set", "train.learning_rate=0.001", "--quiet"]  # fmt: skip


def vitreous(*words):
    return _status(lambda: cli.main([*map(str, words)], standalone_mode=False))


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_faces(tmp_path / "faces", 20, size=32)
    assert vitreous("pack", "faces", "--out", "shards", "--shard-mb", 0.02, "--quiet") == 0
    return tmp_path / "shards"


def room_for(pictures):
    limit = (entry_bytes(pictures, Preprocess(image_size=(32, 32))) + 1) / 1e9
    return ["--set", f"data.max_cache_gb={limit}", "--set", "data.shuffle_buffer=16"]


class Killed(BaseException):
    pass


def test_a_streamed_run_that_was_killed_ends_in_the_same_weights(shards, tmp_path, monkeypatch):
    streamed = [*SMALL, *room_for(20)]
    assert vitreous("train", "shards", "--out", "whole", *streamed) == 0
    save = Diary.save

    def save_and_die(self, plan, at_once):
        save(self, plan, at_once=self.learner.state.step == 8)
        if self.learner.state.step == 10:
            raise Killed

    monkeypatch.setattr(Diary, "save", save_and_die)
    with pytest.raises(Killed):
        vitreous("train", "shards", "--out", "killed", *streamed)
    monkeypatch.setattr(Diary, "save", save)
    assert vitreous("train", "--resume", "killed", "--quiet") == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_training_says_that_it_streams_and_evaluates_shards(shards, capsys):
    loud = [word for word in SMALL if word != "--quiet"]
    assert vitreous("train", "shards", "--out", "run", *loud, *room_for(20)) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "the cache has room for 20 of 60 pictures" in said
    assert vitreous("evaluate", "run", "shards", "--json", "--quiet") == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["n"] == 60
    assert "has learned from 60 of these 60 pictures" in " ".join(answer.err.split())
    assert read_json(shards.parent / "run" / "evaluation.json")["n"] == 12


def test_a_folder_that_has_no_room_is_told_to_pack(shards, capsys):
    assert vitreous("train", "faces", "--out", "run", *SMALL, *room_for(20)) == 1
    assert "vitreous pack" in capsys.readouterr().err


def test_packing_says_what_it_leaves_out(shards, capsys):
    (shards.parent / "faces" / "happy" / "photo.heic").write_bytes(b"of a telephone")
    (shards.parent / "faces" / "notes.txt").write_text("mine")
    assert vitreous("pack", "faces", "--out", "again") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "photographs in a format that isn't read are left out, 1 in all" in told
    assert "files that are not pictures by their names are left out, 1 in all" in told


def test_the_doctor_looks_into_shards(shards, capsys):
    assert vitreous("check", "shards", "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [one["kind"] for one in found if one["severity"] == "error"] == []
