"""What a model has learned without pictures, against scikit-learn."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from tests.explanation.builds import BUILDS, drawn
from vitreous.explanation.anatomy import patch_filters, position_similarity
from vitreous.model.positions import rotate


def check_filters(found: np.ndarray, weight: torch.Tensor, count: int) -> None:
    rows = weight.detach().flatten(1).numpy()
    wanted = PCA(count, svd_solver="full").fit(rows).components_
    wanted = wanted.reshape(count, *weight.shape[1:]).transpose(0, 2, 3, 1)
    assert found.shape == wanted.shape
    assert found.min() >= 0
    assert found.max() <= 1
    for ours, theirs in zip(2 * found - 1, wanted, strict=True):
        theirs = theirs / np.abs(theirs).max()
        sign = np.sign((ours * theirs).sum())
        np.testing.assert_allclose(sign * ours, theirs, atol=1e-3)
        assert np.abs(ours).max() > 0.999


def test_filters_are_principal_components_of_the_projection_or_the_first_convolution():
    model = drawn({"embed_dim": 48, "num_heads": 2})
    check_filters(patch_filters(model), model.patch_embed.proj.weight, 28)
    stem = drawn(BUILDS["stem"])
    check_filters(patch_filters(stem), stem.patch_embed.convs[0].weight, 5)


def test_similarity_of_positions_is_the_cosine():
    model = drawn({})
    found = position_similarity(model)
    assert found is not None
    assert found.shape == (4, 6, 4, 6)
    wanted = cosine_similarity(model.pos_embed[0, 1:].detach().numpy())
    np.testing.assert_allclose(found.reshape(24, 24), wanted, atol=1e-5)
    table = position_similarity(drawn({"pos_embed": "sincos2d"}))
    assert table is not None
    assert table[0, 0, 0, 1] > table[0, 0, 0, 3]
    assert position_similarity(drawn({"pos_embed": "none"})) is None


def test_similarity_of_turns_is_what_a_query_sees_of_a_key_like_itself():
    """Mean over random queries of q R_i (q R_j)^T, by the model's own turning."""
    model = drawn(BUILDS["turned, normed and scaled"])
    found = position_similarity(model)
    assert found is not None
    cos, sin = (turn[:, :, model.num_prefix_tokens :] for turn in turns(model))
    query = torch.randn(4000, 1, 1, 12).expand(-1, 1, 24, -1)
    turned = rotate(query, cos, sin)[:, 0]
    seen = (turned @ turned.transpose(1, 2)).mean(0) / 12
    np.testing.assert_allclose(found.reshape(24, 24), seen.numpy(), atol=0.06)


def turns(model):
    rotation = model._rotation(torch.zeros(1, 1, 24), model.config.image_size, None)
    assert rotation is not None
    return rotation
