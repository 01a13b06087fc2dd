"""Dense layers by oneDNN give what PyTorch's own give, forwards and back."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitreous.model import onednn
from vitreous.model.config import ModelConfig
from vitreous.model.lora import add_lora, merge_lora
from vitreous.model.onednn import OneDnnLinear, has_onednn, prefer_onednn, use_onednn
from vitreous.model.vit import ViT

SMALL = ModelConfig(
    image_size=(48, 48), patch_size=(8, 8), embed_dim=64, depth=1, num_heads=2, mlp_dim=2048
)

pytestmark = pytest.mark.skipif(not has_onednn(), reason="this PyTorch is built without oneDNN")


def twins(*model: nn.Module) -> tuple[nn.Module, nn.Module]:
    plain = nn.Sequential(*model)
    other = copy.deepcopy(plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "_FEWEST_WEIGHTS", 0)
        use_onednn(other)
    assert all(type(layer) is OneDnnLinear for layer in other)
    return plain, other


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number where that is above one."""
    return ((found - wanted).abs().max() / wanted.abs().max().clamp_min(1)).item()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), max_size=3),
    wide=st.integers(1, 40),
    out=st.integers(1, 40),
    bias=st.booleans(),
)
def test_answers_and_gradients_are_those_of_float64(shape, wide, out, bias):
    torch.manual_seed(0)
    plain, other = twins(nn.Linear(wide, out, bias))
    plain.double()
    x = torch.randn(*shape, wide)
    inputs = x.double().requires_grad_(), x.clone().requires_grad_()
    answers = plain(inputs[0]), other(inputs[1])
    assert answers[1].shape == answers[0].shape
    assert off(answers[1], answers[0]) < 1e-5
    with torch.no_grad():
        assert torch.equal(other(x), answers[1])
    grad = torch.randn(answers[1].shape)
    answers[0].backward(grad.double())
    answers[1].backward(grad)
    assert off(inputs[1].grad, inputs[0].grad) < 1e-5
    for wanted, found in zip(plain.parameters(), other.parameters(), strict=True):
        assert off(found.grad, wanted.grad) < 1e-5


def test_what_is_frozen_gets_no_gradient():
    _, other = twins(nn.Linear(5, 3))
    other[0].weight.requires_grad_(False)
    other(torch.randn(2, 5)).sum().backward()
    assert other[0].weight.grad is None
    assert other[0].bias.grad.tolist() == [2, 2, 2]


def test_views_in_another_order_are_read_rightly():
    plain, other = twins(nn.Linear(6, 4))
    x = torch.randn(6, 5, 3).permute(2, 1, 0)
    assert off(other(x), plain(x)) < 1e-5
    other(x).transpose(1, 2).sum(2).sum().backward()
    plain(x).transpose(1, 2).sum(2).sum().backward()
    assert off(other[0].weight.grad, plain[0].weight.grad) < 1e-5


def test_a_second_derivative_is_refused():
    _, other = twins(nn.Linear(4, 4))
    x = torch.randn(2, 4, requires_grad=True)
    (first,) = torch.autograd.grad(other(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_whole_model_keeps_its_weights_and_their_names():
    torch.manual_seed(0)
    model = ViT(SMALL).eval()
    other = copy.deepcopy(model)
    use_onednn(other)
    large = [module for module in other.modules() if isinstance(module, OneDnnLinear)]
    assert large == [other.blocks[0].mlp.fc1, other.blocks[0].mlp.fc2]  # the rest is too small
    assert list(other.state_dict()) == list(model.state_dict())
    pictures = torch.randn(2, 3, 48, 48)
    assert off(other(pictures), model(pictures)) < 1e-5


def test_low_rank_updates_stand_on_it():
    torch.manual_seed(0)
    model = ViT(SMALL).eval()
    use_onednn(model)
    updated = add_lora(copy.deepcopy(model), 2)
    assert isinstance(updated.blocks[0].mlp.fc1.linear, OneDnnLinear)
    pictures = torch.randn(2, 3, 48, 48)
    assert off(merge_lora(updated)(pictures), model(pictures)) < 1e-5


@pytest.mark.parametrize(
    ("maker", "capability", "dtype", "is_taken"),
    [
        (True, "AVX512", torch.float32, True),
        (True, "AVX2", torch.float32, False),
        (False, "AVX512", torch.float32, False),
        (True, "AVX512", torch.bfloat16, False),
    ],
)
def test_it_is_taken_where_it_was_measured(monkeypatch, maker, capability, dtype, is_taken):
    monkeypatch.setattr(onednn, "is_by_amd", lambda: maker)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    model = nn.Sequential(nn.Linear(500, 500)).to(dtype)
    prefer_onednn(model)
    assert isinstance(model[0], OneDnnLinear) == is_taken
