"""A checkpoint of another library stands wherever a trained run can."""

import csv
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.weights.compare import shake
from vitreous.core.console import Console
from vitreous.core.files import read_tensors, write_tensors
from vitreous.data.decode import read_picture
from vitreous.data.folder import list_labelled
from vitreous.data.preprocess import Preprocess, fit, normalise
from vitreous.recipes.configure import configure
from vitreous.serving.origin import original_encoder
from vitreous.serving.weights import Told

ROOT = Path(__file__).parents[2]
HALF = Preprocess((32, 32), (35, 35))


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """The folder of what checkpoints became, for this module alone."""
    folder = tmp_path_factory.mktemp("user-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "vitreous" / "models"


@pytest.fixture(scope="module")
def theirs(timm):
    """A small model of timm's, heads of 64 channels as usual."""
    torch.manual_seed(0)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=128, depth=2, num_heads=2, num_classes=3
    )
    return shake(model)


@pytest.fixture(scope="module")
def checkpoint(theirs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("angry\nhappy\nsad\n\n")
    return path


@torch.no_grad()
def wanted(theirs, files: list[Path], preprocess: Preprocess = HALF) -> np.ndarray:
    pixels = np.stack([fit(read_picture(file), preprocess) for file in files])
    return theirs(normalise(torch.from_numpy(pixels), preprocess)).softmax(1).numpy()


def predicted(vitreous, *words) -> tuple[np.ndarray, list[str], str]:
    result = vitreous("predict", *words, "--json")
    assert result.exit_code == 0, result.stderr
    rows = [answer["probabilities"] for answer in json.loads(result.stdout)]
    return np.array([list(row.values()) for row in rows]), list(rows[0]), result.stderr


def test_a_summary_counts_what_a_file_holds(vitreous, theirs, checkpoint, tmp_path):
    result = vitreous("summary", checkpoint, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["parameters"] == sum(one.numel() for one in theirs.parameters())
    assert found["tokens"] == 17
    assert "2 heads" in result.stderr
    told = vitreous("summary", checkpoint, "--num-heads", "4", "--json")
    assert told.stderr == ""
    assert json.loads(told.stdout) == found  # however many, the heads share the same matrices
    result = vitreous("summary", checkpoint, "--num-heads", "3")
    assert result.exit_code == 2
    assert "128" in result.stderr
    (tmp_path / "empty.safetensors").touch()
    result = vitreous("summary", tmp_path / "empty.safetensors")
    assert result.exit_code == 2
    assert str(tmp_path / "empty.safetensors") in result.stderr


def test_predictions_are_those_of_the_library(vitreous, theirs, checkpoint, names, faces):
    files = sorted((faces / "test").rglob("*.png"))
    found, classes, told = predicted(
        vitreous, checkpoint, *files, "--labels", names, "--preprocess", "half"
    )
    np.testing.assert_allclose(found, wanted(theirs, files), atol=1e-5)
    assert found.std() > 0.01
    assert classes == ["angry", "happy", "sad"]
    for words in ("read as timm", "2 heads", "cover 35x35 px", "mean 0.5, std 0.5"):
        assert words in told


def test_evaluate_scores_a_table(vitreous, theirs, checkpoint, names, faces, tmp_path):
    """Nobody told which class was frequent in training, so the baseline is that of the table."""
    files = sorted((faces / "test").rglob("*.png"))[4:]
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((f, f.parent.name) for f in files)])
    words = (checkpoint, table, "--labels", names, "--preprocess", "half", "--json")
    found = json.loads(vitreous("evaluate", *words).stdout)
    answers = wanted(theirs, files).argmax(1)
    truth = np.array([["angry", "happy", "sad"].index(file.parent.name) for file in files])
    assert found["n"] == 26
    assert found["accuracy"]["value"] == pytest.approx((answers == truth).mean())
    assert found["baselines"]["majority"]["accuracy"] == pytest.approx(10 / 26)


def test_classes_without_names_are_called_by_their_index(vitreous, checkpoint, faces):
    picture = faces / "test" / "sad" / "00000.png"
    _, classes, told = predicted(vitreous, checkpoint, picture, "--preprocess", "half")
    assert classes == ["0", "1", "2"]
    assert "called by their index" in told


def test_a_crop_of_another_size_interpolates_the_positions(
    vitreous, timm, theirs, checkpoint, faces
):
    files = sorted((faces / "test").rglob("*.png"))[:3]
    words = ("--preprocess", "half", "--preprocess", "crop=48")
    found, _, told = predicted(vitreous, checkpoint, *files, *words)
    assert "positions interpolated from 4x4 to 6x6" in told
    larger = timm.models.vision_transformer.VisionTransformer(
        img_size=48, patch_size=8, embed_dim=128, depth=2, num_heads=2, num_classes=3
    ).eval()
    state = dict(theirs.state_dict())
    state["pos_embed"] = timm.layers.resample_abs_pos_embed(state["pos_embed"], [6, 6])
    larger.load_state_dict(state)
    preprocess = Preprocess((48, 48), (53, 53))
    np.testing.assert_allclose(found, wanted(larger, files, preprocess), atol=1e-5)


def test_a_checkpoint_is_rewritten_once(vitreous, checkpoint, names, faces, models):
    picture = faces / "test" / "sad" / "00000.png"
    words = (checkpoint, picture, "--labels", names, "--preprocess", "imagenet")
    first = predicted(vitreous, *words)
    stamps = {path: path.stat().st_mtime_ns for path in models.glob("*/best.safetensors")}
    second = predicted(vitreous, *words)
    assert np.array_equal(first[0], second[0])
    assert first[1:] == second[1:]  # what was assumed is said again
    assert {path: path.stat().st_mtime_ns for path in models.glob("*/best.safetensors")} == stamps


def test_training_begins_with_it_wherever_it_was_kept(
    vitreous, checkpoint, faces, tmp_path, models
):
    """At a rate of nothing the weights are what they were; the run names the checkpoint itself."""
    run = tmp_path / "run"
    words = ("--init", checkpoint, "--preprocess", "half", "--epochs", "1",
             "--set", "train.learning_rate=1e-12")  # fmt: skip
    result = vitreous("train", faces, "--out", run, *words)
    assert result.exit_code == 0, result.stderr
    assert "read as timm" in result.stderr
    with (run / "config.toml").open("rb") as file:
        assert tomllib.load(file)["init"] == str(checkpoint)
    ours, original = load_file(run / "best.safetensors"), load_file(checkpoint)
    for name in original.keys() - {"head.weight", "head.bias"}:
        torch.testing.assert_close(ours[name], original[name], atol=1e-6, rtol=0)
    for entry in models.iterdir():
        shutil.rmtree(entry, ignore_errors=True)
    again = vitreous("train", faces, "--out", tmp_path / "again", "--config", run / "config.toml")
    assert again.exit_code == 0, again.stderr


@pytest.mark.parametrize("with_head", [False, True])
def test_attention_pooling_and_the_norm_behind_it_are_kept(
    vitreous, timm, faces, tmp_path, with_head
):
    """SigLIP's towers have no head, its classifiers of timm have one; only that is new."""
    torch.manual_seed(0)
    original = shake(
        timm.models.vision_transformer.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=128, depth=1, num_heads=2, class_token=False,
            global_pool="map", fc_norm=True, num_classes=5 if with_head else 0,
        )
    ).state_dict()  # fmt: skip
    save_file(original, tmp_path / "siglip.safetensors")
    words = ("--weights", tmp_path / "siglip.safetensors", "--preprocess", "half", "--epochs", "1",
             "--set", "train.learning_rate=1e-12")  # fmt: skip
    result = vitreous("train", faces, "--out", tmp_path / "run", *words)
    assert result.exit_code == 0, result.stderr
    ours = load_file(tmp_path / "run" / "best.safetensors")
    assert ours["head.weight"].shape == (3, 128)
    kept = original.keys() - {"head.weight", "head.bias"}
    assert {"attn_pool.latent", "attn_pool.mlp.fc2.bias", "fc_norm.weight"} <= kept
    for name in kept:
        torch.testing.assert_close(ours[name], original[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "doesn't say how its pictures were prepared"),
        (("--preprocess", "half", "--num-heads", "3"), "not divisible by 3 heads"),
        (("--preprocess", "haf"), "did you mean 'half'"),
    ],
)
def test_what_is_missing_is_asked_for(vitreous, checkpoint, faces, words, said):
    result = vitreous("predict", checkpoint, faces / "test", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [("angry\nhappy\n", "has 2 names"), ("a\n\nb\n", "line 2 is empty"), ("", "it is empty")],
)
def test_labels_that_do_not_fit(vitreous, checkpoint, faces, tmp_path, text, said):
    labels = tmp_path / "labels.txt"
    labels.write_text(text)
    result = vitreous("predict", checkpoint, faces, "--labels", labels, "--preprocess", "half")
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_run_says_it_all_itself(vitreous, run, faces):
    result = vitreous("predict", run, faces / "test", "--preprocess", "half")
    assert result.exit_code == 2
    assert "says its classes, preprocessing and heads itself" in result.stderr


def test_equal_names_are_told_apart(vitreous, checkpoint, faces, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("crane\nfish\ncrane\n")
    picture = faces / "test" / "sad" / "00000.png"
    words = ("--labels", labels, "--preprocess", "half")
    found, classes, told = predicted(vitreous, checkpoint, picture, *words)
    assert classes == ["crane (0)", "fish", "crane (2)"]
    assert found.sum() == pytest.approx(1.0)
    assert "told apart by their index" in told


def test_a_grey_model_gets_colours(vitreous, timm, faces, tmp_path):
    torch.manual_seed(0)
    grey = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=128, depth=1, num_heads=2, num_classes=3, in_chans=1
    )
    path = tmp_path / "grey.safetensors"
    save_file(shake(grey).state_dict(), path)
    picture = faces / "test" / "sad" / "00000.png"
    _, _, told = predicted(vitreous, path, picture, "--preprocess", "half")
    assert "1 colour channels folded into 3" in told


def test_a_model_without_a_head_has_to_learn_classes_first(vitreous, theirs, faces, tmp_path):
    path = tmp_path / "headless.safetensors"
    state = {name: t for name, t in theirs.state_dict().items() if not name.startswith("head.")}
    save_file(state, path)
    result = vitreous("predict", path, faces / "test", "--preprocess", "half")
    assert result.exit_code == 2
    assert f"{path} is pretrained and knows no classes yet" in result.stderr


def test_a_folder_of_transformers_says_it_all(vitreous, transformers, faces, tmp_path):
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, id2label={0: "angry", 1: "happy", 2: "sad"},
    )  # fmt: skip
    model = shake(transformers.ViTForImageClassification(config))
    model.save_pretrained(tmp_path / "vit")
    stated = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3,
              "size": {"height": 32, "width": 32}}  # fmt: skip
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(stated))
    files = sorted((faces / "test").rglob("*.png"))
    found, classes, _ = predicted(vitreous, tmp_path / "vit", *files)
    theirs = wanted(lambda images: model(images).logits, files, Preprocess((32, 32)))
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    assert classes == ["angry", "happy", "sad"]


def test_a_folder_whose_pictures_patches_do_not_fill(vitreous, timm, faces, tmp_path):
    """As SigLIP's So400m with patches of 14 px for pictures of 384."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "embed_dim": 64, "depth": 1, "num_heads": 2, "num_classes": 3}
    model = shake(timm.create_model("vit_so400m_patch14_siglip_gap_384", **sizes))
    timm.models.save_for_hf(
        model, tmp_path / "vit", safe_serialization=True,
        data_config={"input_size": (3, 32, 32), "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1},
    )  # fmt: skip
    files = sorted((faces / "test").rglob("*.png"))[:5]
    found, _, told = predicted(vitreous, tmp_path / "vit", *files)
    assert "the middle 28x28 px" in told

    def seen(images):  # its projection has no use for the last 4 rows and columns
        return model(torch.nn.functional.pad(images, (0, 4, 0, 4)))

    np.testing.assert_allclose(
        found, wanted(seen, files, Preprocess((28, 28), (32, 32))), atol=1e-5
    )
    words = ("train", faces, "--out", tmp_path / "run", "--weights", tmp_path / "vit")
    result = vitreous(*words, "--epochs", "1")
    assert result.exit_code == 0, result.stderr
    refused = vitreous("predict", tmp_path / "vit", *files, "--preprocess", "crop=32")
    assert refused.exit_code == 2
    assert (
        "not a multiple of the patch size 14: the nearest that fit are 28 or 42" in refused.stderr
    )


def test_what_is_told_of_nothing_is_an_error(vitreous, faces, tmp_path):
    result = vitreous("train", faces, "--out", tmp_path / "run", "--preprocess", "half")
    assert result.exit_code == 2
    assert "--weights" in result.stderr
    assert not (tmp_path / "run").exists()


def test_evaluate_needs_pictures(vitreous, checkpoint):
    result = vitreous("evaluate", checkpoint, "--preprocess", "half")
    assert result.exit_code == 2
    assert "name some (DATA)" in result.stderr


def test_the_real_vit_is_right_as_often_as_it_should_be(vitreous, tmp_path):
    """81.4 % is the figure given with the thousand photographs, one for each class."""
    shared = ROOT.parent / "shared"
    weights = shared / "weights" / "vit_tiny_patch16_224_augreg_in21k_ft_in1k.safetensors"
    if not weights.is_file() or not (shared / "data" / "imagenet-1000").is_dir():
        pytest.skip("no ../shared beside the repository: real weights and photographs lie there")
    lines = (shared / "weights" / "imagenet_synset_words.txt").read_text().splitlines()
    labels, table = tmp_path / "labels.txt", tmp_path / "table.csv"
    labels.write_text("\n".join(line.split()[0] for line in lines))
    with table.open("w", newline="") as file:
        pictures = sorted((shared / "data" / "imagenet-1000").glob("*.JPEG"))
        rows = ((picture, picture.name.split("_")[0]) for picture in pictures)
        csv.writer(file).writerows([("path", "label"), *rows])
    words = (weights, table, "--labels", labels, "--preprocess", "half", "--json")
    found = json.loads(vitreous("evaluate", *words).stdout)
    assert found["n"] == 1000
    assert found["accuracy"]["value"] == pytest.approx(0.814, abs=0.007)


def test_weights_that_are_no_numbers_get_no_score(vitreous, run, faces, tmp_path):
    tensors, metadata = read_tensors(run / "best.safetensors")
    tensors["norm.weight"][0] = float("nan")
    path = tmp_path / "diverged.safetensors"
    write_tensors(path, tensors, metadata)
    evaluate, train = ("evaluate", path, faces / "test"), ("train", faces, "--weights", path)
    for words in (evaluate, (*train, "--out", tmp_path / "run")):
        result = vitreous(*words)
        assert result.exit_code == 2
        assert f"{path} has 1 numbers in norm.weight that are NaN" in result.stderr
        assert result.stdout == ""


def test_a_look_back_is_left_out_where_nothing_can_be_written(
    checkpoint, faces, tmp_path, monkeypatch
):
    """Behind training, for the report: the checkpoint would have to be converted anew."""
    told, quiet = Told(None, ("half",), None), Console(quiet=True)
    changes = {"train": {"epochs": 1}}
    listing = list_labelled(faces)
    config = configure(faces, listing, init=str(checkpoint), told=told, changes=changes).config
    assert original_encoder(config, quiet) is not None
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert original_encoder(config, quiet) is None
