"""Files that are damaged, or made to harm: each ends in one line, and nothing of them runs."""

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.weights.compare import shake
from vitreous.errors import ConfigError, WeightsError
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT
from vitreous.model.weights import torch_file
from vitreous.model.weights.adapt import unfilled
from vitreous.model.weights.checkpoint import read_checkpoint
from vitreous.model.weights.damage import telling_damage

CONFIG = ModelConfig(
    image_size=(32, 32), patch_size=(8, 8), num_classes=5, embed_dim=64, depth=2, num_heads=1,
    mlp_dim=40,
)  # fmt: skip


@pytest.fixture
def state():
    return shake(ViT(CONFIG)).state_dict()


class Runs:
    """What a hostile pickle holds: a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_program_does_not_run(state, tmp_path, zipped):
    marker, path = tmp_path / "ran", tmp_path / "model.pth"
    hostile = {
        "state_dict": OrderedDict(state),
        "command": Runs(os.system, f"touch {marker}"),
        "code": Runs(exec, f"open({str(marker)!r}, 'w')"),
        "nested": Runs(print, [Runs(eval, "1")]),
    }
    torch.save(hostile, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert not marker.exists()
    assert torch.equal(found.model.head.weight, state["head.weight"])
    assert "left aside in the file: command, code, nested" in found.notes
    # The same file does run where pickles are trusted.
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_programs_in_the_place_of_tensors_are_no_tensors(state, tmp_path):
    marker = tmp_path / "ran"
    for content in (Runs(os.system, f"touch {marker}"), [Runs(os.system, f"touch {marker}")], 3):
        torch.save(content, tmp_path / "model.pth")
        with pytest.raises(WeightsError, match="state_dict"):
            read_checkpoint(tmp_path / "model.pth")
    torch.save({**state, "norm.weight": Runs(os.system, f"touch {marker}")}, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"missing: 1 \(norm.weight\)"):
        read_checkpoint(tmp_path / "model.pth", num_heads=1)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_whole_module_is_not_built(tmp_path):
    torch.save(ViT(CONFIG), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="object of its own class"):
        read_checkpoint(tmp_path / "model.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="TorchScript"):
        read_checkpoint(tmp_path / "model.pt")


def pickled(path, program: bytes, **entries: bytes):
    """A zip archive as torch.save makes it, around a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in entries.items():
            archive.writestr(f"archive/data/{name[1:]}", content)
    return path


FLOAT = b"ctorch\nFloatStorage\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def storage(count: int) -> bytes:
    return b"(U\x07storage" + FLOAT + b"U\x010U\x03cpuI%d\ntQ" % count


WHOLE = b"(" + storage(2) + b"K\x00(K\x02t(K\x01tI00\n}tR"
OLD_STORAGE = b"(U\x07storage" + FLOAT + b"U\x010U\x03cpuI%d\nNtQ"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        # Room for 4 billion notes would be made before any is read.
        (b"\x80\x02}r\xff\xff\xff\xff.", "note"),
        (b"\x80\x02}p4000000000\n.", "note"),
        # A byte array of 1 TB, made before it is read.
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.", "can't be read|damaged"),
        (b"\x80\x02\x82\x01.", "by number"),
        (b"\x80\x02(U\x05other" + FLOAT + b"tQ.", "unknown kind"),
        (b"\x80\x02" + storage(2**40) + b".", "isn't in the archive"),
        # A tensor of more numbers than its storage has, with a step of 0.
        (
            b"\x80\x02" + REBUILD + b"(" + storage(2) + b"K\x00(I1000000000\nt(K\x00tI00\n}tR.",
            "beyond",
        ),
        (b"\x80\x02" + REBUILD + b"(" + storage(2) + b"K\x01(K\x02t(K\x01tI00\n}tR.", "beyond"),
        (b"\x80\x02" + REBUILD + b"(" + storage(2) + b"I-1\n(K\x02t(K\x01tI00\n}tR.", "impossible"),
        # A state for a tensor or a storage, whose own method would be called with it.
        (b"\x80\x02" + REBUILD + WHOLE + b"(I01\nN}tb.", "can't be read|damaged"),
        (b"\x80\x02" + storage(2) + b"(I01\nN}tb.", "can't be read|damaged"),
        (b"\x80\x02" + storage(2) + b"(N}U\x07contentK\x01stb.", "it sets content"),
        # Attributes of a function that is allowed.
        (b"\x80\x02" + REBUILD + b"}U\x05otherK\x01sb.", "can't be read|damaged"),
        (b"\x80\x02" + REBUILD + b"(N}U\x07contentK\x01stb.", "it sets content"),
        (b"\x80\x02}", "can't be read"),
        (b"garbage", "can't be read"),
        # A dictionary that is its own model.
        (b"\x80\x02}q\x00U\x05modelh\x00s.", "no mapping"),
    ],
)
def test_pickles_that_ask_for_too_much_are_refused(tmp_path, program, words):
    path = pickled(tmp_path / "model.pth", program, _0=b"\0" * 8)
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(path)


PAIR, ONE = b"(K\x01K\x02t", b"K\x01"


@pytest.mark.parametrize(
    ("function", "element"),
    [(b"ctorch\nSize\n", ONE), (b"ccollections\nOrderedDict\n", PAIR), (b"cbuiltins\nset\n", ONE),
     (b"c__builtin__\nfrozenset\n", ONE)],
)  # fmt: skip
def test_few_bytes_do_not_copy_a_list_again_and_again(tmp_path, function, element):
    """Each call takes 6 bytes and would hold 8 for each element of the list, 72 MB in all."""
    many = element + b"q\x000](" + b"h\x00" * 3000 + b"e\x85q\x010"
    calls = function + b"q\x020](" + b"h\x02h\x01R" * 3000 + b"e."
    path = pickled(tmp_path / "model.pth", b"\x80\x02" + many + calls)
    with pytest.raises(WeightsError, match="copies more elements than it has bytes"):
        read_checkpoint(path)


def test_few_bytes_do_not_make_tensors_of_thousands_of_axes(tmp_path):
    axes = b"K\x01q\x000(" + b"h\x00" * 3000 + b"tq\x010"
    call = REBUILD + b"(" + storage(2) + b"K\x00h\x01h\x01I00\n}tR"
    path = pickled(tmp_path / "model.pth", b"\x80\x02" + axes + call + b".", _0=b"\0" * 8)
    with pytest.raises(WeightsError, match="a tensor of 3,000 axes"):
        read_checkpoint(path)


def test_what_is_copied_once_is_read(tmp_path, state):
    """Python 2 wrote its ordered dictionaries as a call with a list."""
    content = {"state_dict": Runs(OrderedDict, [*state.items()]), "seen": {*range(50)},
               "sizes": [tensor.shape for tensor in state.values()]}  # fmt: skip
    torch.save(content, tmp_path / "model.pth")
    found = read_checkpoint(tmp_path / "model.pth")
    assert torch.equal(found.model.head.weight, state["head.weight"])


def test_many_views_of_one_storage_are_not_copied(tmp_path):
    numbers = torch.zeros(25_000)
    views = {f"blocks.{index}.weight": numbers[:] for index in range(1000)}
    torch.save(views, tmp_path / "model.pth")
    assert (tmp_path / "model.pth").stat().st_size < 300_000
    with pytest.raises(WeightsError, match="tensors of 100,000,000, many of the same numbers"):
        read_checkpoint(tmp_path / "model.pth")


def test_half_precision_and_ties_are_no_attack(tmp_path, state, monkeypatch):
    monkeypatch.setattr(torch_file, "_MOST_SHARED", 0)
    state = {name: tensor.half() for name, tensor in state.items()}
    for name in [name for name in state if name.startswith("blocks.0.")]:
        state[name.replace("blocks.0", "blocks.1")] = state[name]
    torch.save(state, tmp_path / "model.pth")
    model = read_checkpoint(tmp_path / "model.pth").model
    assert torch.equal(model.blocks[1].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)


def test_an_old_file_that_claims_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    start = torch_file.LEGACY_START + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    one = REBUILD + b"(" + OLD_STORAGE + b"K\x00(I%d\nt(K\x01tI00\n}tR"
    for count in (2**40, 2):
        program = b"\x80\x02}U\x06weight" + one % (count, count) + b"s."
        path.write_bytes(start + program + pickle.dumps(["0"], 2) + struct.pack("<q", count))
        words = "larger than the whole file" if count > 2 else "ends within storage 0"
        with pytest.raises(WeightsError, match=words):
            read_checkpoint(path)


def test_what_a_pickle_does_to_inert_objects_stays_with_it():
    program = pickle.dumps([Runs(os.getcwd), Runs(os.system, "x"), {os.getpid}], protocol=4)
    inert = torch_file._Unpickler(io.BytesIO(program), lambda *_: torch.empty(0), room=9).load()
    assert all(isinstance(item, torch_file._Inert) for item in inert[:2])
    inert[0].anything = 1
    assert isinstance(inert[0](1, two=2), torch_file._Inert)
    assert not hasattr(torch_file._Inert, "anything")


def test_an_archive_that_unpacks_to_more_than_it_is_long_is_refused(tmp_path, state):
    bomb = tmp_path / "model.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(2**26))
    assert bomb.stat().st_size < 2**18
    with pytest.raises(WeightsError, match="67,108,"):
        read_checkpoint(bomb)
    arrays = tmp_path / "model.npz"
    np.savez_compressed(arrays, **{"embedding/kernel": np.zeros(2**24, np.float32)})
    with pytest.raises(WeightsError, match="unpacks to 67,10"):
        read_checkpoint(arrays)


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    )
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive:
        archive.writestr("embedding/kernel.npy", header.getvalue() + bytes(64))
    with pytest.raises(WeightsError, match=r"embedding/kernel\.npy isn't of its own size"):
        read_checkpoint(tmp_path / "model.npz")
    np.savez(tmp_path / "model.npz", **{"embedding/kernel": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(WeightsError, match="Python objects"):
        read_checkpoint(tmp_path / "model.npz")


@pytest.mark.parametrize("real", [False, True])
def test_a_header_of_a_gigabyte_is_not_read(tmp_path, real):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**30) + b"{")
        if real:
            file.truncate(2**30 + 64)  # holes: no such space is taken on disk
    with pytest.raises(WeightsError, match="header of 1,073,741,824 bytes"):
        read_checkpoint(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("container", ["safetensors", "torch"])
def test_numbers_that_are_not_finite_are_named(tmp_path, state, number, container):
    state["blocks.1.mlp.fc2.bias"][3] = number
    path = tmp_path / "model"
    save_file(state, path) if container == "safetensors" else torch.save(state, path)
    with pytest.raises(WeightsError, match=r"1 numbers? in blocks\.1\.mlp\.fc2\.bias"):
        read_checkpoint(path)


def saved(path, state, container):
    if container == "safetensors":
        save_file(state, path)
    elif container == "npz":
        with path.open("wb") as file:
            np.savez(file, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=container == "torch")
    return path


@pytest.mark.parametrize("container", ["safetensors", "torch", "legacy", "npz"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, state, container):
    path = saved(tmp_path / "model", state, container)
    whole = path.read_bytes()
    for share in (0.0, 0.001, 0.02, 0.3, 0.9, 0.9999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(WeightsError):
            read_checkpoint(path)


@pytest.mark.parametrize("odd", [(), (0,), (3,), (2, 2, 2), (1, 1, 1, 1, 1)])
def test_no_tensor_of_an_odd_shape_gets_in(tmp_path, state, odd):
    path = tmp_path / "model.safetensors"
    for name in state:
        save_file({**state, name: torch.zeros(odd)}, path)
        with pytest.raises(WeightsError):
            read_checkpoint(path, num_heads=1)


def test_every_missing_tensor_is_missed(tmp_path, state):
    path = tmp_path / "model.safetensors"
    for name in state:
        save_file({n: t for n, t in state.items() if n != name}, path)
        with pytest.raises(WeightsError):
            read_checkpoint(path)


def test_weights_of_whole_numbers_are_told(tmp_path, state):
    path = tmp_path / "model.safetensors"
    save_file({**state, "head.weight": state["head.weight"].to(torch.int8)}, path)
    with pytest.raises(WeightsError, match=r"not made of fractions: 1 \(head\.weight int8\)"):
        read_checkpoint(path)


@pytest.mark.parametrize("container", ["safetensors", "torch", "legacy", "npz"])
def test_a_file_with_a_few_wrong_bytes_is_read_or_refused(tmp_path, state, container):
    path = saved(tmp_path / "model", state, container)
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.choice([1, 3, 10])):
            # Structure stands at both ends of a file, numbers between.
            place = draw.choice([draw.randrange(3000), -1 - draw.randrange(5000)])
            changed[place] = draw.choice([0, 255, draw.randrange(256), ord("R"), ord("b")])
        path.write_bytes(changed)
        try:
            read_checkpoint(path)
        except WeightsError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("empty", [torch.empty, np.empty])
def test_too_little_memory_is_not_told_as_damage_alone(tmp_path, empty):
    told = "takes more memory than there is, or is damaged"
    with pytest.raises(WeightsError, match=told), telling_damage(tmp_path / "model.pth"):
        empty(2**55)


def test_files_of_other_kinds_are_told(tmp_path):
    path = tmp_path / "model.safetensors"
    for content, words in (
        (b"", "no file of weights"),
        (b"<html>not found</html>", "no file of weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"PK\x03\x04", "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            read_checkpoint(path)
    with pytest.raises(WeightsError, match="no weights at"):
        read_checkpoint(tmp_path / "nothing")
    with pytest.raises(WeightsError, match=r"none of best\.safetensors"):
        read_checkpoint(tmp_path / "..")
    save_file({"fc.weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"no Vision Transformer.*fc\.weight"):
        read_checkpoint(path)


def test_damaged_settings_are_told(tmp_path, state):
    save_file(state, tmp_path / "model.safetensors")
    for text, words in (("{", "config.json"), ("[]", "mapping"), ("[" * 100_000, "config.json")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(WeightsError, match=words):
            read_checkpoint(tmp_path)
    odd = {"architecture": ["x"], "model_args": 3, "pretrained_cfg": [1], "num_classes": {}}
    for name, value in odd.items():
        (tmp_path / "config.json").write_text(json.dumps({name: value}))
        try:
            read_checkpoint(tmp_path)
        except WeightsError:
            continue


def test_another_container_under_any_name_is_recognised(tmp_path, state):
    torch.save(state, tmp_path / "model.safetensors")
    save_file(state, tmp_path / "model.pth")
    first = read_checkpoint(tmp_path / "model.safetensors").model
    second = read_checkpoint(tmp_path / "model.pth").model
    assert torch.equal(first.head.weight, second.head.weight)
    assert load_file(tmp_path / "model.pth").keys() == first.state_dict().keys()
    assert first.config == replace(CONFIG, num_heads=1)


def test_arrays_of_text_are_told(tmp_path):
    np.savez(tmp_path / "w.npz", **{"cls": np.zeros((1, 1, 4)), "names": np.array(["cat", "dog"])})
    with pytest.raises(WeightsError, match=r"w\.npz"):
        read_checkpoint(tmp_path / "w.npz")


@pytest.mark.parametrize("settings", [{"hidden_act": []}, {"hidden_act": {}}])
def test_settings_of_odd_kinds_are_told(transformers, tmp_path, settings):
    small = transformers.ViTConfig(image_size=32, patch_size=8, hidden_size=64, num_hidden_layers=1,
                              num_attention_heads=1, intermediate_size=40)  # fmt: skip
    transformers.ViTForImageClassification(small).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(WeightsError, match=r"can't be understood \(TypeError"):
        read_checkpoint(tmp_path)


def test_a_share_that_makes_endless_pictures_is_told(tmp_path, state):
    save_file(state, tmp_path / "model.safetensors")
    told = {"architecture": "vit_base_patch16_224", "pretrained_cfg": {"crop_pct": 5e-324,
            "input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(WeightsError, match=r"can't be understood \(OverflowError"):
        read_checkpoint(tmp_path, num_heads=1)


def test_settings_of_more_layers_than_tensors_are_told(tmp_path, state):
    many = replace(CONFIG, head_hidden=(1,) * 5000)
    with pytest.raises(ConfigError, match="fewer than the model has blocks"):
        unfilled(many, state)
