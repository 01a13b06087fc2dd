"""Weights from a hub, spoken to over real HTTP: a stand-in on loopback answers as the hub does."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.e2e.hub.stand_in import NAME, ONCE, TOKEN, files_of, snapshots
from vitreous.recipes.pretrained import TINY

ROOT = Path(__file__).parents[3]


def test_training_begins_with_it_and_writes_down_the_commit(
    vitreous, machine, hub, models, faces, tmp_path
):
    run = tmp_path / "run"
    words = ("--weights", NAME, *ONCE, "--set", "train.learning_rate=1e-12")
    result = vitreous("train", faces, "--out", run, *words)
    assert result.exit_code == 0, result.stderr
    assert f"from {hub.url}: 0.5 MB" in result.stderr
    assert "model.safetensors read as timm" in result.stderr
    commit = hub.repositories[NAME].refs["main"]
    written = f"hf://{NAME}@{commit}"
    assert tomllib.loads((run / "config.toml").read_text())["init"] == written
    assert f"begun with {written} and a new head" in result.stderr
    ours, original = load_file(run / "best.safetensors"), load_file(models[0] / "model.safetensors")
    for name in original.keys() - {"head.weight", "head.bias"}:
        torch.testing.assert_close(ours[name], original[name], atol=1e-6, rtol=0)


def test_only_what_is_needed_is_asked_for_and_nothing_told(ask, machine, hub, tmp_path):
    machine(HF_TOKEN=TOKEN)
    ask(NAME)
    commit = hub.repositories[NAME].refs["main"]
    assert {path.name for path in snapshots(tmp_path)} == {"config.json", "model.safetensors"}
    resolve = f"/{NAME}/resolve/{commit}"
    large = hub.paths()[-1]
    assert [(method, path) for method, path, _ in hub.requests] == [
        ("GET", f"/api/models/{NAME}/revision/main"),
        ("HEAD", f"{resolve}/config.json"),
        ("GET", f"{resolve}/config.json"),
        ("HEAD", f"{resolve}/model.safetensors"),
        ("GET", f"{resolve}/model.safetensors"),
        ("GET", large),
    ]
    assert large.startswith("/cdn/")
    for _, path, headers in hub.requests:
        assert headers["user-agent"] == "vitreous"
        # A token is for the hub, not for whoever sends its files.
        assert headers.get("authorization") == (None if path == large else f"Bearer {TOKEN}")


def test_all_its_spellings_answer_as_the_files_do(ask, machine, hub, models):
    local, _ = ask(models[0])
    repository = hub.repositories[NAME]
    old = repository.refs["main"]
    repository.refs["v1.0"] = old
    repository.commit(files_of(models[1]))
    repository.commit(files_of(models[0]), "refs/pr/1")
    newest, _ = ask(f"hf://{NAME}")
    assert newest == ask(models[1])[0] != local
    for revision in (old, "v1.0", "refs/pr/1"):
        for mark in ("", "hf://", "hf-hub:"):
            assert ask(f"{mark}{NAME}@{revision}")[0] == local
    assert ask(NAME)[0] == newest


def test_evaluate_and_tune_take_it_too(vitreous, machine, hub, models, faces, monkeypatch):
    local = json.loads(vitreous("evaluate", models[0], faces, "--json").stdout)
    result = vitreous("evaluate", NAME, faces, "--json")
    assert json.loads(result.stdout) == local
    assert local["n"] == 30
    counted = json.loads(vitreous("summary", NAME, "--json").stdout)
    assert counted == json.loads(vitreous("summary", models[0], "--json").stdout)
    refused = vitreous("evaluate", NAME)
    assert refused.exit_code == 2
    assert f"{NAME} does not exist here, and has no pictures of its own" in refused.stderr
    for module in ("onnxruntime", "openvino"):  # to measure one runtime is enough here
        monkeypatch.setitem(sys.modules, module, None)
    tuned = vitreous("tune", NAME, "--json")
    assert tuned.exit_code == 0, tuned.stderr
    assert json.loads(tuned.stdout)["runtime"] == "torch"


@pytest.mark.parametrize("gone", ["offline", "hub stopped", "hub failing"])
def test_a_copy_in_the_cache_needs_no_network(ask, machine, hub, gone):
    first, _ = ask(NAME)
    seen = len(hub.requests)
    if gone == "offline":
        machine(HF_HUB_OFFLINE="1")
        why = "HF_HUB_OFFLINE is set"
    elif gone == "hub stopped":
        hub.stop()
        why = "refused"
    else:
        hub.fails = True
        why = "503"
    again, said = ask(NAME)
    assert again == first
    assert f"{hub.url} can't be reached" in said
    assert why in said
    commit = hub.repositories[NAME].refs["main"]
    assert f"{NAME}@{commit} is taken from the cache" in said
    assert len(hub.requests) == seen + (gone == "hub failing")
    pinned, said = ask(f"{NAME}@{commit}")
    assert pinned == first
    assert "can't be reached" not in said  # a commit is the same anywhere
    assert len(hub.requests) == seen + (gone == "hub failing")


def test_settings_that_another_program_left_out_are_fetched(
    ask, fetch_alone, hub, models, tmp_path
):
    local, _ = ask(models[0])
    settings = {"preprocessor_config.json": b"{}"}
    commit = hub.add(NAME, {**files_of(models[0]), **settings})
    fetch_alone(commit)
    assert ask(f"{NAME}@{commit}")[0] == local
    fetched = {"config.json", "model.safetensors", *settings}
    assert {path.name for path in snapshots(tmp_path)} == fetched
    next(path for path in snapshots(tmp_path) if path.name in settings).unlink()
    assert ask(f"{NAME}@{commit}")[0] == local
    assert {path.name for path in snapshots(tmp_path)} == fetched
    seen = len(hub.requests)
    assert ask(f"{NAME}@{commit}")[0] == local
    assert len(hub.requests) == seen  # it is known now that there are no more


def test_a_process_of_its_own_works_offline(ask, hub, tmp_path, picture):
    """As a person has it: variables of the shell, one command after the other."""
    first, _ = ask(NAME)
    seen = len(hub.requests)
    command = [sys.executable, "-m", "vitreous", "predict", NAME, str(picture), "--json"]
    done = subprocess.run(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert json.loads(done.stdout)[0]["probabilities"] == first
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert len(hub.requests) == seen


def test_a_run_goes_on_with_the_very_commit(
    vitreous, machine, hub, models, faces, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run, cache = tmp_path / "run", tmp_path / "hf"
    result = vitreous("train", faces, "--out", run, "--init", NAME, *ONCE)
    assert result.exit_code == 0, result.stderr
    bits = (run / "last.safetensors").read_bytes()

    def interrupt() -> None:
        """As if stopped before the first checkpoint, when the first weights are needed again."""
        for path in (*(run / "checkpoints").iterdir(), run / "evaluation.json"):
            path.unlink()
        (run / "last.safetensors").unlink()

    # A folder named like the owner stands here now, the branch has moved and the cache is empty:
    # what the run began with is fetched again.
    (tmp_path / NAME.split("/")[0]).mkdir()
    hub.repositories[NAME].commit(files_of(models[1]))
    shutil.rmtree(cache)
    interrupt()
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 0, result.stderr
    assert (run / "last.safetensors").read_bytes() == bits

    hub.stop()
    interrupt()
    assert vitreous("train", "--resume", run).exit_code == 0
    assert (run / "last.safetensors").read_bytes() == bits
    again = ("train", faces, "--out", tmp_path / "again", "--config", run / "config.toml")
    assert vitreous(*again).exit_code == 0
    assert (tmp_path / "again" / "last.safetensors").read_bytes() == bits

    shutil.rmtree(cache)
    interrupt()
    result = vitreous("train", "--resume", run)
    assert result.exit_code == 2
    assert "has no checkpoint yet and can't begin" in result.stderr
    assert "HF_ENDPOINT" in result.stderr


def test_other_layouts_of_a_repository(vitreous, ask, refused, hub, models, faces, tmp_path):
    whole = files_of(models[0])
    local, _ = ask(models[0])
    state = load_file(models[0] / "model.safetensors")
    names = sorted(state)
    places = {}
    sharded = {"config.json": whole["config.json"], "README.md": whole["README.md"]}
    for number in range(2):
        shard = f"model-0000{number + 1}-of-00002.safetensors"
        part = {name: state[name] for name in names[number::2]}
        save_file(part, tmp_path / shard)
        sharded[shard] = (tmp_path / shard).read_bytes()
        places |= dict.fromkeys(part, shard)
    sharded["model.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()
    commit = hub.add("anna/shards", sharded)
    pickled = {name: whole[name] for name in ("config.json", "pytorch_model.bin")}
    hub.add("anna/pickle", pickled)
    hub.add("anna/bare", {"vit.pth": whole["pytorch_model.bin"], "training_args.bin": b"x"})
    run = tmp_path / "run"
    assert vitreous("train", faces, "--out", run, "--weights", models[0], *ONCE).exit_code == 0
    hub.add("anna/ours", files_of(run))
    assert ask("anna/shards")[0] == local
    lost = next(path for path in snapshots(tmp_path) if "of-00002" in path.name)
    lost.resolve().unlink()
    assert ask(f"anna/shards@{commit}")[0] == local  # half of it is no copy
    index = {"weight_map": {"head.weight": "gone.safetensors"}}
    hub.add("anna/torn", {"model.safetensors.index.json": json.dumps(index).encode()})
    assert ask("anna/pickle")[0] == local
    bare, _ = ask("anna/bare", "--preprocess", "half")
    assert list(bare.values()) == pytest.approx(list(local.values()), abs=1e-6)
    assert ask("anna/ours")[0] == ask(run)[0]
    assert {p.name for p in snapshots(tmp_path) if "ours" in str(p)} == {"best.safetensors"}
    assert "names the shard 'gone.safetensors', which doesn't lie" in refused("anna/torn")


def test_a_path_wins_and_a_mistyped_one_stays_here(
    ask, refused, hub, models, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models[1], tmp_path / NAME)
    assert ask(NAME)[0] == ask(models[1])[0]
    assert "anna/smal does not exist" in refused("anna/smal")
    assert "weights/vit.pth does not exist" in refused("weights/vit.pth")
    assert hub.requests == []
    assert ask(f"hf://{NAME}")[0] == ask(models[0])[0]


def test_auto_takes_small_weights_and_says_why(
    vitreous, machine, hub, models, faces, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()  # a clone of its code, say, which has no weights
    commit = hub.add(TINY.id, files_of(models[0]))
    run = tmp_path / "run"
    result = vitreous("train", faces, "--out", run, "--weights", "auto", *ONCE)
    assert result.exit_code == 0, result.stderr
    for words in (TINY.id, "Apache-2.0", "shorter side is 32 px"):
        assert words in result.stderr
    written = f"hf://{TINY.id}@{commit}"
    assert tomllib.loads((run / "config.toml").read_text())["init"] == written
    first = json.loads((run / "choice.json").read_text())[0]
    assert first[:2] == ["init", written]
    assert "Apache-2.0" in first[2]


def test_nothing_is_downloaded_unasked(vitreous, machine, hub, faces, tmp_path):
    small = ("--set", "model.depth=1", "--set", "model.embed_dim=16", "--set", "model.num_heads=1")
    line = f"--weights auto would begin with {TINY.id} (5.7 M parameters, 22.9 MB to download, "
    result = vitreous("train", faces, "--out", tmp_path / "plain", *ONCE, *small)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count(line) == 1
    assert "ViT from scratch" in result.stderr
    quiet = vitreous("train", faces, "--out", tmp_path / "quiet", *ONCE, *small, "--quiet")
    # So short a run is told that it is; nothing else is said.
    assert all(line.startswith("warning: Too short") for line in quiet.stderr.splitlines())
    assert hub.requests == []
    assert "huggingface_hub" not in sys.modules


def test_the_real_vit_comes_whole(ask, hub, timm):
    weights = "vit_tiny_patch16_224_augreg_in21k_ft_in1k.safetensors"
    file = ROOT.parent / "shared" / "weights" / weights
    if not file.is_file():
        pytest.skip("no ../shared beside the repository: real weights lie there")
    stated = timm.models.get_pretrained_cfg(TINY.id.removeprefix("timm/")).to_dict()
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 1000, "pretrained_cfg": stated}
    hub.add(TINY.id, {"config.json": json.dumps(config).encode(),
                      "model.safetensors": file.read_bytes()})  # fmt: skip
    found, said = ask(TINY.id)
    assert f"{TINY.megabytes} MB" in said
    assert "cover 248x248 px" in said
    local, _ = ask(file, "--preprocess", "half")
    assert list(found.values()) == pytest.approx(list(local.values()), abs=1e-6)
