"""The newest whole checkpoint is found, whatever happened to it or to the process that wrote it."""

import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

from tests.training.test_learner import same_bits
from tests.training.test_trainer import CLASSES, run_training
from vitreous.core.files import read_tensors
from vitreous.core.run import RunFolder
from vitreous.errors import RunError, StorageError
from vitreous.training import diary
from vitreous.training.checkpoint import (
    Snapshot,
    load_newest_checkpoint,
    newest_milestone,
    snapshot,
    write_checkpoint,
)
from vitreous.training.learner import ClassLearner
from vitreous.training.plan import plan_epochs


def taken(step: int, returns: int = 0, skipped_in_a_row: int = 0) -> Snapshot:
    known = {"step": step, "returns": returns, "skipped_in_a_row": skipped_in_a_row}
    return Snapshot(step, {"model.a": torch.full((500,), float(step))}, known)


def steps(folder) -> list[int]:
    return [int(path.stem[5:]) for path in sorted(folder.glob("step-*"))]


@pytest.fixture
def two(config, faces, tmp_path):
    """A learner's state at steps 2 and 3, both saved; and one that begins."""
    learner, other = (ClassLearner(config, faces, CLASSES) for _ in range(2))
    plan = plan_epochs(4, 3)
    for step in (1, 2, 3):
        learner.learn(plan)
        if step > 1:
            write_checkpoint(tmp_path, snapshot(learner.state, learner.tensors()))
    return learner, other, sorted(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0.999, 0.6, 0.3, 0.001])
def test_one_wrong_bit_is_seen_and_the_one_before_is_taken(two, tmp_path, place):
    _, other, (_, newest) = two
    content = bytearray(newest.read_bytes())
    content[int(place * len(content))] ^= 4
    newest.write_bytes(content)
    assert load_newest_checkpoint(tmp_path, other.state)
    assert other.state.step == 2


@pytest.mark.parametrize("length", [0, 7, 5000, -1])
def test_a_write_that_was_cut_is_passed_over(two, tmp_path, length):
    _, other, (_, newest) = two
    newest.write_bytes(newest.read_bytes()[:length])
    assert load_newest_checkpoint(tmp_path, other.state)
    assert other.state.step == 2


def test_what_is_loaded_is_no_longer_the_file(two, tmp_path):
    """A state mapped into memory would change, or end the process, with the file."""
    learner, other, (_, newest) = two
    assert load_newest_checkpoint(tmp_path, other.state)
    with newest.open("rb+") as file:
        file.write(b"\0" * newest.stat().st_size)
    assert same_bits(learner, other)


def test_none_that_is_whole_is_an_error_and_none_at_all_a_beginning(two, tmp_path):
    _, other, paths = two
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(RunError, match="is damaged"):
        load_newest_checkpoint(tmp_path, other.state)
    for path in paths:
        path.unlink()
    assert not load_newest_checkpoint(tmp_path, other.state)


def test_the_newest_and_a_milestone_before_them_are_kept(tmp_path):
    for step in (0, 10, 11, 12, 20, 21):
        write_checkpoint(tmp_path, taken(step), milestone_every=10)
    assert steps(tmp_path) == [10, 20, 21]
    write_checkpoint(tmp_path, taken(22), milestone_every=10)
    assert steps(tmp_path) == [20, 21, 22]
    assert newest_milestone(tmp_path, 22, 10) == 20
    write_checkpoint(tmp_path, taken(30, skipped_in_a_row=2), milestone_every=10)
    assert newest_milestone(tmp_path, 30, 10) == 20  # something was wrong at 30 already
    for step in (31, 32, 33):
        write_checkpoint(tmp_path, taken(step), milestone_every=10)
    assert steps(tmp_path) == [20, 32, 33]


def test_ways_that_were_left_are_not_gone_again(two, tmp_path):
    _, other, _ = two
    assert load_newest_checkpoint(tmp_path, other.state, [2])
    assert (other.state.step, other.state.returns) == (2, 0)
    assert steps(tmp_path) == [2]


def test_saving_aside_changes_no_bit(config, faces, tmp_path, monkeypatch):
    """Two more steps are taken while each state is being written."""
    straight = run_training(config, faces, tmp_path / "straight")
    write, learn, go_on = diary.write_checkpoint, ClassLearner.learn, threading.Semaphore(0)
    found = {}

    def slow(folder, state, every):
        go_on.acquire(timeout=5)
        write(folder, state, every)
        found[state.step] = read_tensors(folder / f"step-{state.step:09}.safetensors")[0]

    def learn_and_let_write(self, plan):
        loss = learn(self, plan)
        if self.state.step % 3 == 2:
            go_on.release()
        return loss

    monkeypatch.setattr(diary, "write_checkpoint", slow)
    monkeypatch.setattr(ClassLearner, "learn", learn_and_let_write)
    go_on.release()
    run = run_training(config, faces, tmp_path / "slow")
    assert run.last.read_bytes() == straight.last.read_bytes()
    wanted = read_tensors(straight.checkpoints / "step-000000012.safetensors")[0]
    assert all(torch.equal(value, wanted[name]) for name, value in found[12].items())


def test_an_error_in_saving_ends_the_run_at_a_later_step(config, faces, tmp_path, monkeypatch):
    def refuse(folder, state, every):
        if state.step == 6:
            raise StorageError(f"can't write {folder}: no space")

    monkeypatch.setattr(diary, "write_checkpoint", refuse)
    with pytest.raises(StorageError, match="no space"):
        run_training(config, faces, tmp_path / "run")
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_run_killed_between_its_last_two_files_gets_both(config, faces, tmp_path, monkeypatch):
    straight = run_training(config, faces, tmp_path / "straight")
    write = diary.write_checkpoint

    def die(folder, state, every):
        if state.step == 15:
            raise ZeroDivisionError
        write(folder, state, every)

    with monkeypatch.context() as patch:
        patch.setattr(diary, "write_checkpoint", die)
        with pytest.raises(ZeroDivisionError):
            run_training(config, faces, tmp_path / "killed")
    (tmp_path / "killed" / "last.safetensors").unlink(missing_ok=True)
    resumed = run_training(config, faces, tmp_path / "killed")
    assert resumed.last.read_bytes() == straight.last.read_bytes()


#: In a process for each call k: saves step 2 beside step 1, and fails or dies at its k-th call.
FAULTY = """
import errno, os, pathlib, signal, sys, torch
import vitreous.core.files as files
from vitreous.core.run import RunFolder
from vitreous.errors import StorageError
from vitreous.training.checkpoint import Snapshot, write_checkpoint

HOW = ("kill", "ENOSPC", "EIO", "EROFS")

def taken(step):
    known = {"step": step, "returns": 0, "skipped_in_a_row": 0}
    return Snapshot(step, {"model.a": torch.full((500,), float(step))}, known)

def save(folder, at):
    count = 0

    def faulty(call):
        def wrapped(*arguments, **options):
            nonlocal count
            count += 1
            if count != at:
                return call(*arguments, **options)
            if HOW[at % 4] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            number = getattr(errno, HOW[at % 4])
            raise OSError(number, os.strerror(number))
        return wrapped

    for name in "open close fsync mkdir chmod replace rename unlink rmdir".split():
        setattr(os, name, faulty(getattr(os, name)))
    files.save_file = faulty(files.save_file)
    try:
        write_checkpoint(folder, taken(2))
    except StorageError:
        os._exit(3)
    os._exit(0 if count >= at else 4)

at, status = 0, 0
while status != 4:
    at += 1
    run = RunFolder.create(pathlib.Path(sys.argv[1]) / str(at), {"config.toml": ""})
    write_checkpoint(run.checkpoints, taken(1))
    pid = os.fork()
    if not pid:
        save(run.checkpoints, at)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(status, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't fork")
def test_a_fault_at_any_call_of_a_save_leaves_a_whole_one(tmp_path):
    """Of Python's own calls, one kind of fault at each; `benchmarks/faults.py` has them all."""
    words = [sys.executable, "-c", FAULTY, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    statuses = list(map(int, done.stdout.split()))
    assert len(statuses) > 10
    assert set(statuses) >= {3, 4, -9}
    assert 1 not in statuses
    for at in range(1, len(statuses) + 1):
        run = RunFolder.open(tmp_path / f"{at}")
        found = {}
        for step in steps(run.checkpoints):
            tensors, _ = read_tensors(run.checkpoints / f"step-{step:09}.safetensors")
            found[step] = bool((tensors["model.a"] == step).all())
        assert found
        assert all(found.values())
        with run.locked():
            assert not list(run.path.rglob(".*.part"))
            write_checkpoint(run.checkpoints, taken(3))
        assert steps(run.checkpoints)[-1] == 3


def test_a_deterministic_run_is_the_same_on_a_cpu(config, faces, tmp_path, monkeypatch):
    asked, original = [], ClassLearner.loss

    def loss(self, model, *inputs):
        asked.append(torch.are_deterministic_algorithms_enabled())
        return original(self, model, *inputs)

    monkeypatch.setattr(ClassLearner, "loss", loss)
    exact = replace(config, train=replace(config.train, deterministic=True))
    runs = [
        run_training(one, faces, tmp_path / f"{number}")
        for number, one in enumerate((config, exact))
    ]
    assert runs[0].last.read_bytes() == runs[1].last.read_bytes()
    assert asked == [False] * (len(asked) // 2) + [True] * (len(asked) // 2)
    assert not torch.are_deterministic_algorithms_enabled()
