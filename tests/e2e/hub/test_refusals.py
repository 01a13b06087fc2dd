"""What a hub doesn't give, or gives damaged, and how that is said."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.e2e.hub.stand_in import EXPIRED, NAME, TOKEN, files_of, snapshots
from vitreous.recipes.pretrained import TINY
from vitreous.serving.hub import HubId, locate


@pytest.mark.parametrize("gone", ["stopped", "removed"])
def test_where_they_can_not_be_had_it_is_said(ask, fetch_alone, hub, models, gone):
    commit = hub.repositories[NAME].refs["main"]
    fetch_alone(commit)
    if gone == "stopped":
        hub.stop()
    else:
        del hub.repositories[NAME]
    found, said = ask(f"{NAME}@{commit}", "--preprocess", "half")
    assert list(found.values()) == pytest.approx(list(ask(models[0])[0].values()), abs=1e-6)
    assert f"hf://{NAME}@{commit} is taken from the cache, where config.json, preproc" in said
    assert ("can't be reached" if gone == "stopped" else "didn't give it") in said


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("anna/other", "anna/other is neither a path here nor a repository on {url}"),
        (f"{NAME}@v9", f"{{url}}/{NAME} has no revision 'v9': name a branch, a tag or a commit"),
        ("anna/text", "only README.md, sub/a.npz, training_args.bin: name another"),
        ("anna/gated", "{url}/anna/gated is gated: ask for access on that page, then set HF_TOKEN"),
        ("anna/private", "if it is private, set HF_TOKEN"),
        ("anna/odd--name", "Cannot have -- or .. in repo_id"),
        ("hf://anna", "hf://anna is no id: write hf://owner/name"),
        ("nowhere", "nowhere does not exist: name a run, a file or folder of weights, or a model"),
        ("vit_tiny_patch16_224.augreg", "(timm's: hf://timm/vit_tiny_patch16_224.augreg)"),
    ],
)
def test_what_a_hub_does_not_give(refused, hub, models, tmp_path, where, said):
    hub.add("anna/text", {"README.md": b"", "training_args.bin": b"x", "sub/a.npz": b""})
    hub.add("anna/gated", files_of(models[0]), gated=True)
    hub.add("anna/private", files_of(models[0]), private=True)
    assert said.format(url=hub.url) in refused(where)
    assert not any(path.suffix == ".safetensors" for path in snapshots(tmp_path))


def test_a_token_opens_what_is_gated_or_private(ask, refused, machine, hub, models):
    hub.add("anna/gated", files_of(models[0]), gated=True)
    hub.add("anna/private", files_of(models[0]), private=True)
    machine(HF_TOKEN="hf_of_somebody_else")
    assert "is gated: ask for access" in refused("anna/gated")
    machine(HF_TOKEN=EXPIRED)
    said = refused(NAME)
    assert "refuses the token in use (" in said
    assert "unset HF_TOKEN" in said
    machine(HF_TOKEN=TOKEN)
    assert ask("anna/gated")[0] == ask("anna/private")[0] == ask(models[0])[0]


def test_no_hub_is_said_with_where_it_was_sought(refused, machine, hub, tmp_path):
    hub.stop()
    said = refused(NAME)
    for words in (hub.url, "refused", f"not in the cache ({tmp_path / 'hf' / 'hub'})",
                  "HF_ENDPOINT", "a local file or folder"):  # fmt: skip
        assert words in said
    machine(HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in refused(NAME)


def test_without_the_package_its_extra_is_named(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = refused(NAME)
    assert "pip install 'vitreous[hub]'" in said
    assert f"{NAME} does not exist here" in said  # it may have been meant for a run
    assert "does not exist" not in refused(f"hf://{NAME}")


def test_a_cut_download_goes_on_where_it_was(machine, hub, tmp_path):
    """Of a size that comes in several parts; HTTP alone is concerned, not what is in it."""
    from vitreous.core.console import Console

    content = torch.arange(1_000_000, dtype=torch.float32)
    save_file({"numbers": content}, tmp_path / "w.safetensors")
    hub.add("anna/long", {"model.safetensors": (tmp_path / "w.safetensors").read_bytes()})
    hub.cuts = 1
    place = locate("anna/long", Console(quiet=True))
    assert torch.equal(load_file(place.path)["numbers"], content)
    starts = [headers.get("range") for _, path, headers in hub.requests if path.startswith("/cdn")]
    assert starts == [None, "bytes=3145728-"]
    assert place.id == HubId("anna/long", hub.repositories["anna/long"].refs["main"])


@pytest.mark.parametrize(
    ("fault", "said"), [("shortens", "Consistency check failed"), ("spoils", "came damaged")]
)
def test_half_a_file_or_a_wrong_one_is_never_taken(
    ask, refused, hub, models, tmp_path, fault, said
):
    setattr(hub, fault, True)
    assert said in refused(NAME)
    assert not any(path.suffix == ".safetensors" for path in snapshots(tmp_path))
    assert sum(path.stat().st_size for path in (tmp_path / "hf").rglob("*")) < 100_000
    setattr(hub, fault, False)
    assert ask(NAME)[0] == ask(models[0])[0]


def test_a_full_disk_is_one_line(machine, hub, tmp_path, picture):
    script = f"""
import resource, signal, sys
from vitreous.cli import _status, cli
import torch, huggingface_hub
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
words = ["predict", {NAME!r}, {str(picture)!r}, "--quiet"]
sys.exit(_status(lambda: cli.main(words, standalone_mode=False)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        f"can't write hf://{NAME}@main to {tmp_path / 'hf' / 'hub'}: File too large" in done.stderr
    )
    assert "HF_HOME" in done.stderr
    assert done.stderr.count("\n") == 1


def test_auto_without_a_hub_is_never_from_scratch(vitreous, machine, hub, faces, tmp_path):
    hub.stop()
    result = vitreous("train", faces, "--out", tmp_path / "run", "--weights", "auto", "--quiet")
    assert result.exit_code == 2
    assert f"{TINY.id}@main is not in the cache" in result.stderr
    assert list(tmp_path.iterdir()) == []
