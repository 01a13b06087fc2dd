"""Training by several processes, real ones that talk over gloo."""

import hashlib
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.together import BAD_SEED, BAD_STEP, sometimes_bad, work
from vitreous.core.config import to_mapping
from vitreous.core.files import read_json, read_tensors
from vitreous.core.launch import FILE, first_files, run_place
from vitreous.data.faces import write_faces
from vitreous.errors import ConfigError
from vitreous.model.chance import Draws, drawing_from, dropout, random_order
from vitreous.training.config import PretrainConfig, RunConfig, TrainConfig
from vitreous.training.distributed import Team
from vitreous.training.learner import ClassLearner
from vitreous.training.logbook import read_logbook
from vitreous.training.plan import Plan
from vitreous.training.shards import Division, cut

HERE = Path(__file__).parent
STEPS, HALF = 20, 8
#: Settings that train with one process, two and four.
TURNS = ("odd turns", "one part in turns", "fsdp in turns")
NAMES = ("stem", "one part", "three parts", "pretrain", "fsdp", "in turns", "streamed", *TURNS)
BAD = ("bad step", "fsdp, bad step")


@pytest.fixture(scope="module")
def settings(base_config: RunConfig) -> dict[str, tuple[dict, int]]:
    """What is trained, by name; everything that is random is on."""
    # A seed whose first batch isn't balanced: with equal classes and a head of zeros the gradient
    # of its bias is zero but for rounding, which Adam makes a step of.
    train = replace(base_config.train, learning_rate=3e-3, seed=3, precision="float32")
    stem = replace(base_config, train=train)
    plain = replace(stem, model=replace(stem.model, stem=()))

    def varied(config: RunConfig, steps: int = STEPS, **changes) -> tuple[dict, int]:
        return to_mapping(replace(config, train=replace(config.train, **changes))), steps

    pretrain = replace(
        plain,
        pretrain=PretrainConfig(decoder_dim=16),
        augment=replace(plain.augment, erase_chance=0.0, mix_chance=0.0),
        preprocess=replace(plain.preprocess, mirror=False),
        train=replace(train, label_smoothing=0.0),
    )
    sharded = {"optimizer": "adamw", "parallel": "fsdp", "grad_checkpointing": True}
    return {
        # Batch norm is of a part of the batch, and each of up to four processes has whole ones.
        "stem": varied(stem, shards=4, optimizer="muon"),
        # Each has a piece of the only part; parts that don't divide evenly.
        "one part": varied(plain, optimizer="muon", grad_checkpointing=True),
        "three parts": varied(plain, HALF, shards=3, optimizer="adamw"),
        "pretrain": varied(pretrain, HALF),
        "in turns": varied(stem, 12, shards=4, accumulate=2, optimizer="muon"),
        # Some pieces have fewer pictures than turns.
        "odd turns": varied(plain, HALF, shards=3, accumulate=3, optimizer="adamw"),
        "one part in turns": varied(
            plain, HALF, accumulate=3, optimizer="muon", grad_checkpointing=True
        ),
        "fsdp in turns": varied(plain, HALF, **sharded, accumulate=2),
        "streamed": varied(plain, HALF, optimizer="adamw"),
        "bad step": varied(stem, HALF, shards=4, optimizer="muon", seed=BAD_SEED),
        "fsdp, bad step": varied(plain, HALF, **sharded, seed=BAD_SEED),
        "fsdp": varied(plain, **sharded),
        "fsdp, stem": varied(stem, HALF, **sharded),
        "ddp, stem": varied(stem, HALF, **{**sharded, "parallel": "ddp"}),
        "first half": varied(plain, HALF, optimizer="muon", grad_checkpointing=True),
        "fsdp first half": varied(plain, HALF, **sharded),
    }


def second_halves(settings: dict) -> dict:
    """Go on with what two processes have begun."""
    return {
        "second half": (settings["first half"][0], STEPS - HALF),
        "fsdp second half": (settings["fsdp first half"][0], STEPS - HALF),
    }


def launch(script: Path, *words: object, count: int) -> list[subprocess.Popen]:
    """Processes as `torchrun` would start them, without its watching over them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(count):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}  # fmt: skip
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        command = [sys.executable, script, *map(str, words)]
        started.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    return started


def trained(folder: Path, settings: dict, count: int, begun: Path | None = None) -> Path:
    """Where several processes have trained, and written what came out."""
    folder.mkdir()
    if begun:
        for kind in ("", "fsdp "):
            shutil.copytree(begun / f"{kind}first half", folder / f"{kind}second half-from")
    (folder / "settings.json").write_text(json.dumps(settings))
    processes = launch(HERE / "together.py", folder / "settings.json", folder, count=count)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors
    return folder


@pytest.fixture(scope="module")
def by_two(settings, tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("two") / "out", settings, 2)


@pytest.fixture(scope="module")
def by_four(settings, by_two, tmp_path_factory) -> Path:
    asked = {name: settings[name] for name in (*NAMES, *BAD)} | second_halves(settings)
    return trained(tmp_path_factory.mktemp("four") / "out", asked, 4, by_two)


@pytest.fixture(scope="module")
def alone(settings, by_two, tmp_path_factory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("alone")
    for kind in ("", "fsdp "):
        shutil.copytree(by_two / f"{kind}first half", folder / f"{kind}second half-from")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassLearner, "loss", sometimes_bad)
        return work(settings | second_halves(settings), folder)


def losses(folder: Path) -> dict[str, list[float]]:
    return json.loads((folder / "process-0.json").read_text())[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_batches_give_the_same_losses(name, alone, by_two, by_four):
    assert max(alone[name]) - min(alone[name]) > 0.02
    for folder in (by_two, by_four):
        assert losses(folder)[name] == pytest.approx(alone[name], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "whole"), [*zip(TURNS, ("three parts", "one part", "fsdp"), strict=True)]
)
def test_turns_give_the_same_losses_too(name, whole, alone):
    assert alone[name] == pytest.approx(alone[whole][:HALF], rel=1e-5)


@pytest.mark.parametrize("name", BAD)
def test_a_step_without_a_number_in_one_process_changes_nothing_in_any(
    name, alone, by_two, by_four
):
    for found in (alone, losses(by_two), losses(by_four)):
        assert [math.isfinite(loss) for loss in found[name]] == [
            step != BAD_STEP for step in range(HALF)
        ]
        assert found[name] == pytest.approx(alone[name], rel=1e-5, nan_ok=True)


def test_all_processes_have_the_same_bits_after_every_step(by_two, by_four):
    for folder, count in ((by_two, 2), (by_four, 4)):
        seen = [
            json.loads((folder / f"process-{rank}.json").read_text())[1] for rank in range(count)
        ]
        assert len(set(seen[0])) > 2 * STEPS
        assert all(other == seen[0] for other in seen)


def test_divided_weights_learn_like_whole_ones(by_two):
    divided, whole = (newest(by_two / name) for name in ("fsdp, stem", "ddp, stem"))
    assert divided.keys() == whole.keys()
    assert losses(by_two)["fsdp, stem"] == pytest.approx(losses(by_two)["ddp, stem"], rel=1e-5)
    for name, value in whole.items():
        assert divided[name].shape == value.shape
        # Of some biases (a key's, a softmax' score's) the gradient is rounding alone, see above.
        if ".weight" in name:
            torch.testing.assert_close(divided[name], value, atol=2e-5, rtol=1e-3)


def newest(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(max(folder.glob("*.safetensors")))[0]


@pytest.mark.parametrize(("kind", "whole"), [("", "one part"), ("fsdp ", "fsdp")])
def test_a_run_of_two_goes_on_with_one_and_with_four(kind, whole, alone, by_two, by_four):
    assert losses(by_two)[f"{kind}first half"] == losses(by_two)[whole][:HALF]
    for found in (alone, losses(by_four)):
        rest = found[f"{kind}second half"]
        assert rest == pytest.approx(losses(by_two)[whole][HALF:], rel=1e-5)


def test_an_error_of_one_process_ends_all_and_is_told_once(settings, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"gone": settings["one part"]}))
    processes = launch(HERE / "together.py", tmp_path / "settings.json", tmp_path, count=2)
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert all(process.returncode for process in processes)
    assert sum(text.count("can't read the decoded pictures") for text in told) == 1
    assert "error: process" in told[0]
    assert "of 2: can't read the decoded pictures of the first process" in told[0]
    assert "--cache" in told[0]
    assert "Traceback" not in "".join(told)


def test_a_killed_process_is_started_again_and_the_run_ends_like_an_unbroken_one(tmp_path):
    write_faces(tmp_path / "faces", 5, size=32)
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    words = [HERE / "misfortunes.py", "killed", tmp_path / "faces", tmp_path]
    command = [sys.executable, "-m", *torchrun, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "going on at step 5 of 9" in done.stderr
    for name in ("last.safetensors", "best.safetensors"):
        killed, straight = (tmp_path / run / name for run in ("killed", "straight"))
        assert hashlib.sha256(killed.read_bytes()).digest() == (
            hashlib.sha256(straight.read_bytes()).digest()
        )


def test_behind_an_error_the_others_end_and_are_not_trained_with(tmp_path):
    write_faces(tmp_path / "faces", 5, size=32)
    processes = launch(HERE / "misfortunes.py", "error", tmp_path / "faces", tmp_path, count=2)
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 1], told
    assert not (tmp_path / "run").exists()


def test_all_processes_go_back_together(tmp_path):
    write_faces(tmp_path / "faces", 5, size=32)
    processes = launch(HERE / "misfortunes.py", "no-number", tmp_path / "faces", tmp_path, count=2)
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    lines = read_logbook(tmp_path / "run" / "metrics.jsonl")
    (back,) = [line for line in lines if line["kind"] == "returned"]
    assert 0 < back["step"] < back["failed_step"]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, steps[-1] + 1))
    plan = Plan.from_json(read_json(tmp_path / "run" / "plan.json"))
    assert (plan.rate_share, plan.total_steps) == (0.25, steps[-1])


@pytest.mark.parametrize(
    ("batch", "parts", "size"), [(12, 4, 2), (14, 4, 2), (13, 3, 2), (7, 1, 4)]
)
def test_every_picture_is_worked_on_once(batch, parts, size):
    whole = cut(batch, parts)
    assert [len(rows) for rows in whole] == [
        len(part) for part in torch.ones(batch).tensor_split(parts)
    ]
    found = []
    for rank in range(size):
        division = Division(batch, parts, team=Team(rank, size))
        assert division.rows() == range(len(found), len(found) + len(division.rows()))
        for piece in division.pieces():
            part = whole[piece.part]
            assert piece.rows.start == part.start + piece.first
            assert len(part) == piece.size
            assert set(piece.rows) <= set(part)
            assert parts % size or len(piece.rows) == piece.size
            found += piece.rows
    assert found == list(range(batch))


@pytest.mark.parametrize("own", [True, False])
def test_a_picture_draws_the_same_wherever_it_is(own):
    # As a convolution leaves tokens: draws follow the order in memory.
    tokens = torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(1)).transpose(1, 2)

    def drawn(x, batch, first):
        torch.manual_seed(4)
        generator = torch.Generator().manual_seed(4) if own else None
        with drawing_from(Draws(generator, batch, first)):
            return dropout(x, 0.5), random_order(len(x), 9, x.device)

    whole = drawn(tokens, None, 0)
    for first, last in ((0, 2), (2, 3), (3, 6)):
        part = drawn(tokens[first:last], 6, first)
        assert all(torch.equal(one, two[first:last]) for one, two in zip(part, whole, strict=True))


def test_numbers_drawn_for_the_rest_of_a_batch_are_not_kept():
    tokens = torch.rand(2, 5, 4)
    for draws in (Draws(None, 64, 6), Draws(torch.Generator(), 64, 6)):
        drawn = draws.like(tokens, torch.zeros_like)
        assert drawn.untyped_storage().nbytes() == tokens.untyped_storage().nbytes()


def test_what_cannot_be_divided_is_refused(config, faces, monkeypatch):
    with pytest.raises(ConfigError, match=r"Muon needs whole ones.*train\.optimizer=adamw"):
        TrainConfig(parallel="fsdp", optimizer="muon")
    monkeypatch.setattr("vitreous.training.distributed._team", Team(0, 13))
    with pytest.raises(ConfigError, match=r"train\.batch_size is 12, too few for 13 processes"):
        ClassLearner(config, faces, ("angry", "happy", "sad"))


def test_only_a_restart_goes_on_with_what_its_launch_began(tmp_path, monkeypatch):
    default = tmp_path / "runs" / "faces"
    for name, launch_name in (("faces", "another"), ("faces-2", "mine")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / FILE).write_text(launch_name)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    third = default.with_name("faces-3")
    assert run_place(default, None) == (third, False)
    assert first_files(default.with_name("elsewhere")) == {}
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert run_place(default, default) == (default, False)
    assert run_place(default, None) == (default.with_name("faces-2"), True)
    # It has gone on with that one: the next training of the same script is another.
    assert run_place(default, None) == (third, False)
    assert first_files(third) == {FILE: "mine"}
    third.mkdir()
    (third / FILE).write_text("mine")
    assert run_place(default, third) == (third, False)


def test_without_a_name_a_launch_is_known_by_what_watches_over_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    name = first_files(tmp_path / "run")[FILE]
    assert str(os.getppid()) in name
    assert name == first_files(tmp_path / "other")[FILE]
