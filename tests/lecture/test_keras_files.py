"""Keras' files into our model and back, whoever named the layers, and what is refused."""

import sys
import zipfile

import h5py
import numpy as np
import pytest
import torch

from tests.lecture.compare import distance, shake
from vitreous.errors import ConfigError, StorageError, WeightsError
from vitreous.lecture import ViT, load_keras, save_keras

SIZES = {
    "num_heads": 2,
    "hidden_size": 24,
    "num_patches": 9,
    "num_layers": 3,
    "num_dense_units": 16,
}
#: Where every square matrix has the same shape: projection, encoders and head.
ALIKE = {
    "num_heads": 1,
    "hidden_size": 12,
    "num_patches": 4,
    "num_layers": 12,
    "num_dense_units": 12,
}


def keras_model(classes, pictures, sizes=SIZES, patch_size=8):
    model = classes.ViT(**sizes, patch_size=patch_size)
    model(pictures)
    shake(model)
    return model


@pytest.fixture
def ours() -> ViT:
    torch.manual_seed(0)
    model = ViT(2, 24, 9, 3, 16, patch_size=8).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", ["vit.weights.h5", "vit.keras"])
def test_keras_3_to_ours_and_back(lecture3, keras, pictures, tmp_path, name):
    theirs = keras_model(lecture3, pictures)
    save = theirs.save if name.endswith(".keras") else theirs.save_weights
    save(tmp_path / name)
    model = load_keras(tmp_path / name)
    pictures /= 255
    assert distance(model(torch.from_numpy(pictures)), theirs(pictures)) < 1e-5
    save_keras(model, tmp_path / f"back.{name}")
    if name.endswith(".keras"):
        again = keras.saving.load_model(
            tmp_path / f"back.{name}", custom_objects={"vitreous>ViT": lecture3.ViT}
        )
    else:
        again = lecture3.ViT(**SIZES, patch_size=8)
        again(pictures)
        again.load_weights(tmp_path / f"back.{name}")
    for mine, wanted in zip(again.get_weights(), theirs.get_weights(), strict=True):
        assert mine.tobytes() == wanted.tobytes()
    assert distance(torch.from_numpy(np.array(again(pictures))), theirs(pictures)) < 1e-5


def test_a_trained_models_optimiser_is_left_out(lecture3, pictures, tmp_path):
    theirs = keras_model(lecture3, pictures)
    theirs.compile("adam", "sparse_categorical_crossentropy")
    theirs.fit(pictures / 255, np.arange(7) % 3, verbose=0)
    theirs.save(tmp_path / "vit.keras")
    model = load_keras(tmp_path / "vit.keras")
    assert distance(model(torch.from_numpy(pictures / 255)), theirs(pictures / 255)) < 1e-5


@pytest.mark.parametrize("name", ["vit.h5", "vit.weights.h5", "vit.keras"])
def test_tf_keras_2_to_ours_and_back_into_the_same_file(lecture2, pictures, tmp_path, name):
    theirs = keras_model(lecture2, pictures)
    save = theirs.save if name.endswith(".keras") else theirs.save_weights
    save(tmp_path / name)
    model = load_keras(tmp_path / name)
    pictures /= 255
    wanted = np.array(theirs(pictures))
    assert distance(model(torch.from_numpy(pictures)), wanted) < 1e-5
    save_keras(model, tmp_path / f"back.{name}", like=tmp_path / name)
    if name.endswith(".keras"):
        return  # tf.keras 2 can't load a model of a class with arguments of its own
    theirs.set_weights([np.zeros_like(value) for value in theirs.get_weights()])
    theirs.load_weights(tmp_path / f"back.{name}")
    assert distance(torch.from_numpy(np.array(theirs(pictures))), wanted) < 1e-5


@pytest.mark.parametrize("generation", ["lecture2", "lecture3"])
def test_equal_shapes_everywhere_are_told_apart_by_place_and_number(request, generation, tmp_path):
    classes = request.getfixturevalue(generation)
    pictures = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype(np.float32)
    theirs = keras_model(classes, pictures, ALIKE, patch_size=2)
    theirs.save_weights(tmp_path / "vit.weights.h5")
    model = load_keras(tmp_path / "vit.weights.h5")
    assert model.config.depth == 12
    assert distance(model(torch.from_numpy(pictures)), theirs(pictures)) < 1e-5


def functional(keras, units=16, final_norm=False):
    """The same computation as a functional model: every layer in one flat list."""
    layers = keras.layers
    inputs = keras.Input((24, 24, 3))
    # A patch's pixels, row by row: what extract_patches makes.
    x = layers.Reshape((3, 8, 3, 8, 3))(inputs)
    x = layers.Reshape((9, 192))(layers.Permute((1, 3, 2, 4, 5))(x))
    x = layers.Dense(24)(x)
    positions = keras.ops.cast(0 * x[:, :, 0], "int32") + np.arange(9)
    x = x + layers.Embedding(9, 24)(positions)
    for _ in range(3):
        normed = layers.LayerNormalization()(x)
        x = layers.MultiHeadAttention(2, 24)(normed, normed) + x
        y = layers.LayerNormalization()(x)
        y = layers.Dense(24, activation="gelu")(y)
        x = layers.Dense(24, activation="gelu")(y) + x
    if final_norm:
        x = layers.LayerNormalization()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(units, activation="gelu")(x)
    x = layers.Dense(units, activation="gelu")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


@pytest.mark.parametrize("units", [16, 24])
def test_a_functional_model_has_no_groups_but_an_order(keras, pictures, tmp_path, units):
    keras.backend.clear_session()
    theirs = functional(keras, units)
    shake(theirs)
    theirs.save_weights(tmp_path / "flat.weights.h5")
    model = load_keras(tmp_path / "flat.weights.h5")
    pictures /= 255
    assert distance(model(torch.from_numpy(pictures)), theirs(pictures)) < 1e-5


def renamed(source, target, names):
    """Copy a weights file with groups renamed, as another author's attributes would have it."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(path, item):
            if isinstance(item, h5py.Dataset):
                for before, after in names.items():
                    path = path.replace(before, after)
                new[path] = item[()]

        old.visititems(copy)


def test_names_without_numbers_need_a_map(lecture3, pictures, tmp_path):
    theirs = keras_model(lecture3, pictures)
    theirs.save_weights(tmp_path / "vit.weights.h5")
    other = tmp_path / "other.weights.h5"
    renamed(tmp_path / "vit.weights.h5", other,
            {"layer_norm_1": "pre", "layer_norm_2": "before_mlp"})  # fmt: skip
    with pytest.raises(WeightsError, match=r"name map.*transformer_encoder/before_mlp 24 \+ 24"):
        load_keras(other)
    places = [f"layers/transformer_encoder{number}" for number in ("", "_1", "_2")]
    names = {f"blocks.{index}.norm1": f"{place}/pre" for index, place in enumerate(places)}
    model = load_keras(other, names=names)
    pictures /= 255
    assert distance(model(torch.from_numpy(pictures)), theirs(pictures)) < 1e-5
    swapped = {f"blocks.{index}.norm2": f"{place}/pre" for index, place in enumerate(places)}
    wrong = load_keras(other, names=swapped)
    assert distance(wrong(torch.from_numpy(pictures)), theirs(pictures)) > 1e-5


def test_blocks_without_numbers_need_a_map(lecture3, pictures, tmp_path):
    theirs = keras_model(lecture3, pictures)
    theirs.save_weights(tmp_path / "vit.weights.h5")
    other = tmp_path / "other.weights.h5"
    renamed(tmp_path / "vit.weights.h5", other,
            {"transformer_encoder_1": "middle", "transformer_encoder_2": "end",
             "transformer_encoder": "begin"})  # fmt: skip
    with pytest.raises(WeightsError, match="name map"):
        load_keras(other)
    with pytest.raises(WeightsError, match=r"each of blocks\.0 to blocks\.2"):
        load_keras(other, names={"blocks.0": "layers/begin"})
    names = {"blocks.0": "layers/begin", "blocks.1": "layers/middle", "blocks.2": "layers/end"}
    model = load_keras(other, names=names)
    pictures /= 255
    assert distance(model(torch.from_numpy(pictures)), theirs(pictures)) < 1e-5
    with pytest.raises(WeightsError, match=r"unknown layer 'blocks\.0\.norm'"):
        load_keras(other, names={**names, "blocks.0.norm": "layers/begin/layer_norm_1"})
    with pytest.raises(WeightsError, match="has no layer 'layers/begin/layer_norm'"):
        load_keras(other, names={**names, "blocks.0.norm1": "layers/begin/layer_norm"})


def change(path, edit):
    with h5py.File(path, "r+") as file:
        edit(file)


def test_what_does_not_fit_is_named_with_its_shapes(ours, tmp_path):
    path = tmp_path / "vit.weights.h5"

    def refuses(match, edit):
        path.unlink(missing_ok=True)
        save_keras(ours, path)
        change(path, edit)
        with pytest.raises(WeightsError, match=match):
            load_keras(path)

    def resize(name, shape):
        def edit(file):
            if name in file:
                del file[name]
            file[name] = np.zeros(shape, np.float32)

        return edit

    encoder = "layers/transformer_encoder_1"
    refuses("has 0 embedding tables instead of 1", lambda file: file.__delitem__(
        "layers/patch_encoder/positional_embedding"))  # fmt: skip
    refuses(rf"{encoder}/multi_head_att/value_dense.* 24x2x23", resize(
        f"{encoder}/multi_head_att/value_dense/vars/0", (24, 2, 23)))  # fmt: skip
    refuses(r"has 1 layers 24 \+ 24 where 2 are needed, for blocks\.1\.norm1, blocks\.1\.norm2",
            lambda file: file.__delitem__(f"{encoder}/layer_norm_2"))  # fmt: skip
    refuses(r"no dense layer of the head for 216 inputs.*dense_1 215x16",
            resize("dense_1/vars/0", (215, 16)))  # fmt: skip
    refuses("dense layers of 16, 17 units", lambda file: [
        resize(name, shape)(file) for name, shape in
        {"dense_2/vars/0": (16, 17), "dense_2/vars/1": (17,), "dense_3/vars/0": (17, 3)}.items()
    ])  # fmt: skip
    refuses("more layers than the lecture's model.*final 24", lambda file: (
        resize("final/vars/0", (24,))(file), resize("final/vars/1", (24,))(file)))  # fmt: skip


def test_an_ambiguous_size_or_a_picture_that_is_no_square_is_asked_for(tmp_path):
    model = ViT(1, 8, 6, 1, 4, patch_size=2, image_size=(4, 6))
    save_keras(model, tmp_path / "wide.weights.h5")
    with pytest.raises(WeightsError, match="6 patches, which make no square"):
        load_keras(tmp_path / "wide.weights.h5")
    again = load_keras(tmp_path / "wide.weights.h5", image_size=(4, 6))
    pictures = torch.rand(2, 4, 6, 3)
    assert again(pictures).equal(model.eval()(pictures))
    with pytest.raises(ConfigError, match="make no square"):
        ViT(1, 8, 6, 1, 4, patch_size=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_and_other_widths_are_read_from_the_shapes(tmp_path, channels):
    sizes = {"patch_size": 4, "in_channels": channels, "head_dim": 6, "mlp_dim": 20}
    model = ViT(3, 8, 4, 2, 5, num_classes=4, **sizes).eval()
    save_keras(model, tmp_path / "vit.weights.h5")
    again = load_keras(tmp_path / "vit.weights.h5")
    assert again.config == model.config
    pictures = torch.rand(2, 8, 8, channels)
    assert again(pictures).equal(model(pictures))


def test_only_the_lectures_model_is_written_and_the_name_says_how(ours, tmp_path):
    with pytest.raises(WeightsError, match=r"has to end with \.weights\.h5 or \.keras"):
        save_keras(ours, tmp_path / "vit.h5")
    with pytest.raises(WeightsError, match=r"model\.class_token is True"):
        save_keras(ViT(2, 24, 9, 1, 16, patch_size=8, class_token=True), tmp_path / "a.keras")
    with pytest.raises(WeightsError, match=r"write \.weights\.h5"):
        save_keras(ViT(2, 24, 9, 1, 16, patch_size=8, head_dim=12), tmp_path / "a.keras")
    save_keras(ours, tmp_path / "b.keras")
    deeper = ViT(2, 24, 9, 4, 16, patch_size=8)
    with pytest.raises(WeightsError, match=r"has 0 layers 24 \+ 24 where 2 .* blocks\.3\.norm1"):
        save_keras(deeper, tmp_path / "c.keras", like=tmp_path / "b.keras")
    with pytest.raises(StorageError, match="can't write"):
        save_keras(ours, tmp_path / "missing" / "a.keras")
    assert not list(tmp_path.glob(".*"))


def test_no_file_no_weights_no_harm(ours, tmp_path):
    def refuses(path, match):
        with pytest.raises(WeightsError, match=match):
            load_keras(path)

    refuses(tmp_path / "none.keras", "no weights at")
    text = tmp_path / "text.weights.h5"
    text.write_text("weights")
    refuses(text, "no HDF5 file")
    good = tmp_path / "good.weights.h5"
    save_keras(ours, good)
    content = good.read_bytes()
    cut = tmp_path / "cut.weights.h5"
    cut.write_bytes(content[: len(content) // 2])
    refuses(cut, "damaged")
    empty = tmp_path / "empty.weights.h5"
    h5py.File(empty, "w").close()
    refuses(empty, "has no weights")
    archive = tmp_path / "other.keras"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights.npz", b"")
    refuses(archive, "not a .keras file")


def test_nothing_outside_the_file_is_read_and_nothing_grows(ours, tmp_path):
    def attacked(edit):
        path = tmp_path / "attack.weights.h5"
        path.unlink(missing_ok=True)
        save_keras(ours, path)
        change(path, edit)
        with pytest.raises(WeightsError) as raised:
            load_keras(path)
        return str(raised.value)

    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))

    def external(file):
        del file["dense_3/vars/1"]
        file.create_dataset("dense_3/vars/1", (3,), "f4", external=[(str(secret), 0, 12)])

    def virtual(file):
        del file["dense_3/vars/1"]
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "x.h5"), "bias", (3,))
        file.create_virtual_dataset("dense_3/vars/1", layout)

    def linked(file):
        del file["dense_3/vars/1"]
        file["dense_3/vars/1"] = h5py.ExternalLink(str(tmp_path / "x.h5"), "bias")

    def bomb(file):
        file.create_dataset("bomb/vars/0", (1 << 20, 1 << 20), "f4", chunks=(1, 1 << 20))

    assert "lies in another file" in attacked(external)
    assert "lies in another file" in attacked(virtual)
    assert "needed" in attacked(linked) or "has" in attacked(linked)
    assert "larger than the file allows" in attacked(bomb)
    packed = tmp_path / "bomb.keras"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", bytes(100 << 20))
    with pytest.raises(WeightsError, match="packed too tightly"):
        load_keras(packed)


def test_an_archives_configuration_is_never_looked_at(ours, tmp_path):
    path = tmp_path / "vit.keras"
    save_keras(ours, path)
    with zipfile.ZipFile(path) as old:
        weights = old.read("model.weights.h5")
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("config.json", b"\x80\x04not even JSON")
        new.writestr("model.weights.h5", weights)
    pictures = torch.rand(1, 24, 24, 3)
    assert load_keras(path)(pictures).equal(ours(pictures))


def test_equal_models_are_equal_files(ours, tmp_path):
    for name in ("a.keras", "b.keras"):
        save_keras(ours, tmp_path / name)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert archive.testzip() is None


def test_without_h5py_it_says_what_to_install(ours, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match=r"pip install 'vitreous\[keras\]'"):
        save_keras(ours, tmp_path / "a.keras")
    with pytest.raises(WeightsError, match=r"pip install 'vitreous\[keras\]'"):
        load_keras(tmp_path / "a.keras")
