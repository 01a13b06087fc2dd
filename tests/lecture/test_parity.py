"""The lecture's layers, model, gradients and training step against real Keras."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.lecture.compare import distance, shake
from vitreous.lecture import PatchEncoder, TransformerEncoder, ViT, load_keras

# Of width 16: Keras cuts 1 / sqrt(head_dim) to float32, which only powers of 4 survive.
SIZES = {
    "num_heads": 2,
    "hidden_size": 16,
    "num_patches": 9,
    "num_layers": 3,
    "num_dense_units": 20,
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(scope="session")
def exact(build, keras, tf):
    """The lecture's classes with a GELU whose square root of 2 isn't cut to float32."""

    def gelu(x):
        return 0.5 * x * (1.0 + tf.math.erf(x / tf.sqrt(tf.constant(2.0, x.dtype))))

    return build(keras, gelu)


def test_tensorflows_own_gelu_is_not_exact_in_float64(tf):
    """Why float64 is compared with another one."""
    x = np.linspace(-3, 3, 13)
    off = np.abs(F.gelu(torch.from_numpy(x)).numpy() - tf.nn.gelu(tf.constant(x)).numpy()).max()
    assert 1e-10 < off < 1e-7


@pytest.fixture(params=["float32", "float64"])
def pair(request, lecture3, exact, keras, tmp_path, pictures):
    """Keras' model and ours with the same weights, which went through a file."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    keras.utils.set_random_seed(1)  # one whose answers aren't all close to 0 and 1
    try:
        classes = exact if request.param == "float64" else lecture3
        theirs = classes.ViT(**SIZES, patch_size=8)
        theirs(pictures)
    finally:
        keras.config.set_dtype_policy(policy)
    shake(theirs)
    theirs.save_weights(tmp_path / "vit.weights.h5")
    ours = load_keras(tmp_path / "vit.weights.h5")
    assert next(ours.parameters()).dtype == getattr(torch, request.param)
    return theirs, ours, request.param


def test_every_step_of_the_forward_pass_is_keras(pair, pictures):
    theirs, ours, dtype = pair
    pictures = pictures.astype(dtype)
    encoder = PatchEncoder(9, 16, patch_size=8).to(getattr(torch, dtype))
    encoder.load_state_dict(
        {k: v for k, v in ours.state_dict().items() if k in encoder.state_dict()}
    )
    tokens = encoder(torch.from_numpy(pictures))
    x = theirs.patch_encoder(pictures)
    assert tokens.shape == (7, 9, 16)
    assert distance(tokens, x) < TOLERANCE[dtype]
    for index, keras_encoder in enumerate(theirs.trans_encoders):
        block = TransformerEncoder(2, 16).to(getattr(torch, dtype))
        block.load_state_dict(ours.blocks[index].state_dict())
        given = torch.from_numpy(np.array(x))
        x = keras_encoder(x)
        assert distance(block(given), x) < TOLERANCE[dtype]


def test_probabilities_are_keras_for_any_batch_through_one_model(pair):
    theirs, ours, dtype = pair
    for batch in (1, 8, 32, 7):
        pictures = np.random.default_rng(batch).uniform(0, 2, (batch, 24, 24, 3)).astype(dtype)
        answers = ours(torch.from_numpy(pictures))
        assert answers.shape == (batch, 3)
        assert distance(answers, theirs(pictures)) < TOLERANCE[dtype], batch


def test_a_wrong_weight_is_seen(pair, pictures):
    theirs, ours, dtype = pair
    pictures = (pictures / 100).astype(dtype)
    with torch.no_grad():
        ours.blocks[1].norm2.bias[3] += 1.0
    assert distance(ours(torch.from_numpy(pictures)), theirs(pictures)) > 1e-4


def keras_gradients(theirs, pictures, labels, tf, keras):
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(labels, theirs(pictures))
        loss = tf.reduce_mean(losses)
    variables = [variable.value for variable in theirs.trainable_variables]
    return [tf.convert_to_tensor(part) for part in tape.gradient(loss, variables)]


def our_loss(ours, pictures, labels):
    return F.nll_loss(ours(torch.from_numpy(pictures)).log(), torch.from_numpy(labels))


def in_our_layout(theirs, values, path):
    """Keras' tensors under our names, by way of a file."""
    before = theirs.get_weights()
    theirs.set_weights([np.asarray(value) for value in values])
    theirs.save_weights(path)
    theirs.set_weights(before)
    return load_keras(path).state_dict()


def test_gradients_are_keras(pair, pictures, tf, keras, tmp_path):
    theirs, ours, dtype = pair
    pictures, labels = (pictures / 100).astype(dtype), np.array([0, 1, 2, 0, 1, 2, 0])
    gradients = keras_gradients(theirs, pictures, labels, tf, keras)
    expected = in_our_layout(theirs, gradients, tmp_path / "gradients.weights.h5")
    our_loss(ours, pictures, labels).backward()
    width = ours.config.attention_dim
    for name, parameter in ours.named_parameters():
        found, wanted = parameter.grad, expected[name]
        if name.endswith("qkv.bias"):
            # Zero by theory: what a key's bias adds is the same for all keys, and softmax drops it.
            assert found[width : 2 * width].abs().max() < 1e-6
            keep = [*range(width), *range(2 * width, 3 * width)]
            found, wanted = found[keep], wanted[keep]
        assert distance(found, wanted) < 1e-4, name


def test_a_training_step_is_keras(pair, pictures, tf, keras, tmp_path):
    from vitreous.training.optim import KerasAdam

    theirs, ours, dtype = pair
    pictures, labels = (pictures / 100).astype(dtype), np.array([0, 1, 2, 0, 1, 2, 0])
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    optimizer = keras.optimizers.Adam(1e-3)
    mine = KerasAdam(ours.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    gradients = keras_gradients(theirs, pictures, labels, tf, keras)
    optimizer.apply(gradients, theirs.trainable_variables)
    our_loss(ours, pictures, labels).backward()
    mine.step()
    theirs.save_weights(tmp_path / "after.weights.h5")
    after = load_keras(tmp_path / "after.weights.h5").state_dict()
    for name, value in ours.state_dict().items():
        assert not value.equal(before[name]), name
        if dtype == "float32":
            assert distance(value, after[name]) < 1e-4, name
        else:  # the step itself, not only where it led
            assert distance(value - before[name], after[name] - before[name]) < 1e-4, name


def test_adams_epsilon_stands_where_keras_has_it(keras):
    from vitreous.training.optim import KerasAdam

    gradients = np.array([1e-9, 1e-8, 1e-7, 1e-6, 1e-3, 1.0])
    variable = keras.Variable(np.zeros(6), dtype="float64")
    theirs = keras.optimizers.Adam(1e-3)
    ours, plain = (torch.nn.Parameter(torch.zeros(6, dtype=torch.float64)) for _ in range(2))
    ours.grad = plain.grad = torch.from_numpy(gradients)
    keras_adam = KerasAdam([ours], lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    torch_adam = torch.optim.Adam([plain], lr=1e-3, betas=(0.9, 0.999), eps=1e-7)
    for _ in range(4):
        theirs.apply([keras.ops.convert_to_tensor(gradients)], [variable])
        keras_adam.step()
        torch_adam.step()
    wanted = np.asarray(variable)
    # Keras computes the two bias corrections in float32.
    assert np.abs(ours.detach().numpy() / wanted - 1).max() < 1e-5
    assert np.abs(plain.detach().numpy() / wanted - 1).max() > 0.1


def test_the_first_weights_are_drawn_as_tf_keras_draws_them(lecture2):
    theirs = lecture2.ViT(4, 96, 9, 1, 64, patch_size=8)
    theirs(np.zeros((1, 24, 24, 3), np.float32))
    torch.manual_seed(0)
    ours = ViT(4, 96, 9, 1, 64, patch_size=8)
    block, keras_block = ours.blocks[0], theirs.trans_encoders[0]
    attention = keras_block.multi_head_att
    pairs = {
        "projection": (ours.patch_embed.proj.weight, theirs.patch_encoder.linear_projection.kernel),
        "positions": (ours.pos_embed, theirs.patch_encoder.positional_embedding.embeddings),
        "query": (block.attn.qkv.weight[:384], attention._query_dense.kernel),
        "value": (block.attn.qkv.weight[768:], attention._value_dense.kernel),
        "output": (block.attn.proj.weight, attention._output_dense.kernel),
        "mlp": (block.mlp.fc1.weight, keras_block.dense_1.kernel),
        "head": (ours.head_mlp[0].weight, theirs.dense_1.kernel),
        "classifier": (ours.head.weight, theirs.dense_3.kernel),
    }
    for name, (mine, keras_weight) in pairs.items():
        # Both are uniform; the largest value of hundreds lies close to the bound.
        wanted = np.abs(np.asarray(keras_weight)).max()
        assert mine.abs().max().item() == pytest.approx(wanted, rel=0.06), name
        assert mine.std().item() == pytest.approx(np.asarray(keras_weight).std(), rel=0.12), name
    assert all(not bias.any() for name, bias in ours.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("heads", "layers", "units", "count"), [(8, 4, 1024, 283_478_787), (4, 2, 128, 47_232_899)]
)
def test_parameter_counts_agree_with_keras(lecture3, heads, layers, units, count):
    with torch.device("meta"):
        ours = ViT(heads, 768, 256, layers, units)
    assert sum(parameter.numel() for parameter in ours.parameters()) == count
    theirs = lecture3.ViT(heads, 768, 256, layers, units)
    theirs(np.zeros((1, 256, 256, 3), np.float32))
    assert theirs.count_params() == count


def test_a_class_token_is_an_option():
    model = ViT(2, 24, 9, 1, 16, patch_size=8, class_token=True)
    assert model(torch.rand(4, 24, 24, 3)).shape == (4, 3)
    assert model.head_mlp[0].in_features == 24
