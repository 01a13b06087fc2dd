"""What is captured is what the model computes, and what other libraries say of the same weights."""

import copy

import pytest
import torch
from torch import nn

from tests.explanation.builds import SMALL, drawn
from vitreous.explanation.capture import capture, log_odds
from vitreous.model.fold import FoldedAttention, fold
from vitreous.model.weights.checkpoint import read_checkpoint


def test_the_answer_stays_the_models_own(model, images):
    captured = capture(model, images)
    torch.testing.assert_close(captured.logits, model(images), rtol=1e-4, atol=1e-5)
    tokens = model.config.num_tokens
    assert len(captured.attention) == 3
    for weights in captured.attention:
        assert weights.shape == (2, 2, tokens, tokens)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, tokens))
    assert (captured.pooling is not None) == (model.config.pool in ("map", "seq"))
    if captured.pooling is not None:
        patches = captured.pooling.sum(1 if model.config.pool == "seq" else -1)
        torch.testing.assert_close(patches, torch.ones_like(patches))


def test_the_model_computes_as_before_behind_it(images):
    model = drawn({})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = model(images)
    captured = capture(model, images)
    torch.autograd.grad(captured.logits.sum(), captured.attention)
    assert torch.equal(model(images), wanted)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_folded_heads_are_caught_as_the_plain_ones(images):
    plain = drawn({"head_dim": 40})
    folded = fold(copy.deepcopy(plain))
    assert isinstance(folded.blocks[0].attn, FoldedAttention)
    ours, theirs = capture(folded, images), capture(plain, images)
    for one, two in zip(ours.attention, theirs.attention, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    torch.autograd.grad(ours.logits.sum(), ours.attention)  # though no weight has a gradient


def test_weights_are_those_of_timm(timm, images):
    """timm computes them one by one where its fused attention is switched off."""
    model = drawn({"num_register_tokens": 0, "qk_norm": True})
    oracle = timm.models.VisionTransformer(
        img_size=SMALL.image_size, patch_size=8, num_classes=5, embed_dim=24, depth=3,
        num_heads=2, qk_norm=True,
    ).eval()  # fmt: skip
    oracle.load_state_dict(model.state_dict())
    theirs = []
    for block in oracle.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda *seen: theirs.append(seen[2]))
    oracle(images)
    for one, two in zip(capture(model, images).attention, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


class ConstantSpread(nn.LayerNorm):
    """A layer norm that divides by what has no gradient."""

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        deviation = x.std(-1, correction=0, keepdim=True)
        return centred / (deviation**2 + self.eps).sqrt().detach() * self.weight + self.bias


def test_weights_and_gradients_are_those_of_transformers(transformers, images, tmp_path):
    settings = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40,
        image_size=(32, 48), patch_size=8, num_labels=5, layer_norm_eps=1e-6,
        attn_implementation="eager",
    )  # fmt: skip
    oracle = transformers.ViTForImageClassification(settings).eval()
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(0.25 * torch.randn_like(parameter))
    oracle.save_pretrained(tmp_path)
    model = read_checkpoint(tmp_path).model.eval()
    for module in oracle.modules():
        if type(module) is nn.LayerNorm:
            module.__class__ = ConstantSpread
    theirs = oracle(pixel_values=images, output_attentions=True)
    ours = capture(model, images)
    score = theirs.logits.softmax(1)[:, 2].logit().sum()
    gradients = torch.autograd.grad(score, theirs.attentions)
    mine = torch.autograd.grad(log_odds(ours.logits, torch.tensor([2, 2])).sum(), ours.attention)
    for one, two in zip((*ours.attention, *mine), (*theirs.attentions, *gradients), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-2


def test_log_odds_are_those_of_the_probability_and_don_t_saturate():
    logits = torch.randn(6, 4, dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 3, 0, 1])
    wanted = logits.softmax(1)[torch.arange(6), classes].logit()
    torch.testing.assert_close(log_odds(logits, classes), wanted)
    sure = torch.tensor([[90.0, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(log_odds(sure, torch.tensor([0])).sum(), sure)
    assert gradient[0].tolist() == pytest.approx([1.0, -0.5, -0.5])
    assert log_odds(torch.tensor([[3.0]]), torch.tensor([0])).tolist() == [3.0]
