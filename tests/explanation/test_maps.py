"""Rollout, relevance and integrated gradients, each against someone else's computation."""

import gc

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from tests.explanation.builds import NO_TOKEN, drawn
from vitreous.explanation.capture import capture, log_odds
from vitreous.explanation.gradients import integrated_gradients
from vitreous.explanation.methods import METHOD_NAMES, Named
from vitreous.explanation.relevance import evidence, relevance
from vitreous.explanation.rollout import attention, attention_by_head, reading, rollout

CLASSES = torch.tensor([3, 1])


def arrays(tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def test_rollout_is_abnars_and_zuidemas(images):
    model = drawn({})
    captured = capture(model, images)
    for at, found in enumerate(rollout(model, images).numpy()):
        joint = np.eye(26)
        for weights in arrays(captured.attention):
            joint = (0.5 * weights[at].mean(0) + 0.5 * np.eye(26)) @ joint
        np.testing.assert_allclose(found, joint[0, 2:], rtol=1e-4)


#: What each pooling reads, of 2 prefix tokens and 24 patches.
READ = {
    "cls": np.eye(26)[0],
    "prefix": np.r_[0.5, 0.5, np.zeros(24)],
    "mean": np.r_[0, 0, np.full(24, 1 / 24)],
    "flatten": np.r_[0, 0, np.full(24, 1 / 24)],
    "cls+mean": np.r_[0.5, 0, np.full(24, 0.5 / 24)],
}


@pytest.mark.parametrize("pool", READ)
def test_the_row_that_stands_for_the_answer_is_what_the_pooling_reads(images, pool):
    model = drawn({"pool": pool})
    found = reading(model, capture(model, images))
    np.testing.assert_allclose(found.numpy(), np.tile(READ[pool], (2, 1)), rtol=1e-6)


def test_of_a_pooling_that_attends_its_own_weights_are_read(images):
    sequence = drawn({"pool": "seq"})
    tokens = sequence.forward_tokens(images)[:, 2:]
    wanted = nn.functional.softmax(sequence.attn_pool.score(tokens), dim=1)[..., 0]
    found = reading(sequence, capture(sequence, images))
    torch.testing.assert_close(found[:, 2:], wanted.detach())
    torch.testing.assert_close(attention(sequence, images), wanted.detach())
    mapped = drawn({"pool": "map"})
    pool, tokens = mapped.attn_pool, mapped.forward_tokens(images)[:, 2:]
    other = nn.MultiheadAttention(24, 2, batch_first=True)
    other.in_proj_weight.data = torch.cat([pool.q.weight, pool.kv.weight]).detach()
    other.in_proj_bias.data = torch.cat([pool.q.bias, pool.kv.bias]).detach()
    _, wanted = other(pool.latent.expand(2, -1, -1), tokens, tokens)
    found = reading(mapped, capture(mapped, images))
    torch.testing.assert_close(found[:, 2:], wanted[:, 0].detach(), rtol=1e-4, atol=1e-6)


def test_one_layer_and_head_are_those_of_the_class_tokens_row(images):
    model = drawn({})
    weights = capture(model, images).attention
    by_head = attention_by_head(model, capture(model, images))
    assert by_head.shape == (2, 3, 2, 24)
    wanted = weights[1][:, 1, 0, 2:].detach()
    torch.testing.assert_close(by_head[:, 1, 1], wanted)
    torch.testing.assert_close(attention(model, images, 1, 1), wanted)
    torch.testing.assert_close(attention(model, images, 1), weights[1].detach().mean(1)[:, 0, 2:])
    torch.testing.assert_close(attention(model, images), weights[2].detach().mean(1)[:, 0, 2:])


def chefer(weights, gradients, seed):
    """Equations 5 and 6 of Chefer et al. 2021, with the whole matrix; `seed` reads its rows."""
    relevances = np.eye(weights[0].shape[-1])
    for weight, gradient in zip(weights, gradients, strict=True):
        relevances = relevances + (weight * gradient).clip(min=0).mean(0) @ relevances
    return seed @ relevances


def seed_of(model, captured, gradients):
    """How much each token counts for the head, for one picture at a time."""
    prefix = model.num_prefix_tokens
    if model.config.pool == "cls":
        return np.tile(np.eye(26)[0], (2, 1))
    row = np.einsum("btc,btc->bt", captured.tokens.detach().numpy(), gradients[3])
    row[:, :prefix] = np.abs(row[:, :prefix])
    if captured.pooling is not None:
        pooled = captured.pooling.detach().numpy() * gradients[4]
        pooled = pooled.mean(1)[:, 0] if model.config.pool == "map" else pooled[:, :, 0]
        row = np.concatenate([np.zeros((2, prefix)), pooled], axis=1)
    return row


def test_relevance_is_chefers_for_every_build(model, images):
    captured = capture(model, images)
    pooling = [] if captured.pooling is None else [captured.pooling]
    score = log_odds(captured.logits, CLASSES).sum()
    gradients = arrays(torch.autograd.grad(score, [*captured.attention, captured.tokens, *pooling]))
    seeds, weights = seed_of(model, captured, gradients), arrays(captured.attention)
    for at, found in enumerate(relevance(model, images, CLASSES).numpy()):
        of_picture = [weight[at] for weight in weights], [part[at] for part in gradients[:3]]
        wanted = chefer(*of_picture, seeds[at])[model.num_prefix_tokens :]
        # A single class token may count for any number; only the order of the patches matters.
        found, wanted = (each / np.abs(each).max() for each in (found, wanted))
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-5)
        assert found.std() > 1e-3
        if model.config.pool in ("cls", "prefix"):
            assert found.min() >= 0


def test_relevance_is_that_of_the_class_asked_for(images):
    model = drawn({})
    blurred, classes = torch.zeros_like(images), [torch.tensor([at, at]) for at in (0, 4)]
    one, other = (Named("relevance")(model, images, blurred, each) for each in classes)
    assert not torch.allclose(one, other, rtol=0.1)
    one, other = (Named("rollout")(model, images, blurred, each) for each in classes)
    assert torch.equal(one, other)


def test_integrated_gradients_are_captums(model, images):
    model, images = model.double(), images.double()
    blurred = torch.zeros_like(images) + 0.1
    oracle = IntegratedGradients(lambda x: model(x).softmax(1).logit())
    theirs = oracle.attribute(images, blurred, CLASSES, n_steps=12, method="gausslegendre")
    ours = integrated_gradients(model, images, blurred, CLASSES, steps=12)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_integrated_gradients_add_up_to_the_difference(model, images):
    model, images = model.double(), 0.3 * images.double()
    blurred = torch.zeros_like(images)
    found = integrated_gradients(model, images, blurred, CLASSES, steps=64)
    difference = log_odds(model(images), CLASSES) - log_odds(model(blurred), CLASSES)
    torch.testing.assert_close(found.sum((1, 2, 3)), difference.detach(), rtol=1e-2, atol=1e-3)
    assert difference.abs().min() > 1e-2


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_mirrored_picture_has_the_mirrored_map(images, name):
    model = drawn({"pool": "mean", **NO_TOKEN})
    both, blurred = Named(name, mirror=True), torch.zeros_like(images)
    found = both(model, images, blurred, CLASSES)
    assert found.shape == (2, 32, 48)
    mirrored = both(model, images.flip(-1), blurred, CLASSES)
    torch.testing.assert_close(found, mirrored.flip(-1), rtol=1e-3, atol=1e-6)
    once = Named(name)(model, images, blurred, CLASSES)
    assert not torch.allclose(once, found, rtol=1e-2)
    torch.testing.assert_close(
        found, (once + Named(name)(model, images.flip(-1), blurred, CLASSES).flip(-1)) / 2,
        rtol=1e-3, atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["relevance", "rollout", "attention"])
def test_a_picture_and_its_mirror_image_are_looked_at_one_after_the_other(images, name):
    """And gradients, whose graph holds all that was computed, are for those that need them."""
    model, looks = drawn({}), []
    model.patch_embed.register_forward_hook(
        lambda _, inputs, __: looks.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    Named(name, mirror=True)(model, images[:1], torch.zeros_like(images[:1]), CLASSES[:1])
    assert looks == [(1, name == "relevance")] * 2


def test_without_gradients_the_same_is_captured(model, images):
    plain, watched = capture(model, images, gradients=False), capture(model, images)
    for one, two in zip(plain.attention, watched.attention, strict=True):
        assert torch.equal(one, two)
        assert not one.requires_grad
    assert torch.equal(plain.logits, watched.logits)


def test_attention_times_gradient_is_held_of_one_block_at_a_time(images, monkeypatch):
    model = drawn({"depth": 6})
    captured, held = capture(model, images), []
    mean = torch.Tensor.mean

    def counting(self, *args, **kwargs):
        shape = captured.attention[0].shape
        there = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.shape == shape]
        held.append(len({x.data_ptr() for x in there}))
        return mean(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "mean", counting)
    evidence(model, captured, CLASSES)
    # Each block's attention and its gradient, and the products of one.
    assert len(held) == 6
    assert max(held) <= 2 * 6 + 2
