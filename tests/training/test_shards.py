from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitreous.core.threads import SideBySide
from vitreous.model.chance import Dropout, DropPath
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT
from vitreous.training.learner import ClassLearner
from vitreous.training.plan import plan_epochs
from vitreous.training.shards import Shards, choose_shards, smallest_part

CLASSES = ("angry", "happy", "sad")
CPU = torch.device("cpu")
PLAIN = ModelConfig(
    image_size=(16, 16), patch_size=(8, 8), embed_dim=24, depth=2, num_heads=2, num_classes=3
)


def drawn(config: ModelConfig) -> ViT:
    """A model whose every weight has a gradient: a fresh head is zero, and lets none through.

    In float64, so that the order of a sum doesn't show.
    """
    torch.manual_seed(0)
    model = ViT(config).train()
    nn.init.normal_(model.head.weight, std=0.3)
    return model.double()


def loss_of(model, images, labels):
    return F.cross_entropy(model(images), labels)


def batch(count):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(count, 3, 16, 16, generator=generator).double()
    return images, torch.randint(3, (count,), generator=generator)


def gradients(model):
    return [weight.grad for weight in model.parameters()]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_parts_give_the_gradient_of_the_whole_batch(count):
    model, inputs = drawn(PLAIN), batch(13)  # which none of the counts divides
    loss = loss_of(model, *inputs)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    found = Shards(model, SideBySide(count)).backward(loss_of, inputs, seed=0)
    assert found.item() == pytest.approx(loss.item(), abs=1e-6)
    for one, other in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)
        assert other.any()


def test_gradients_lie_in_memory_as_their_weights_do():
    """Or PyTorch's fused AdamW gives each weight the gradient of another."""
    model, inputs = drawn(replace(PLAIN, stem=(8, 8, 8))), batch(8)
    Shards(model, SideBySide(2)).backward(loss_of, inputs, seed=0)
    for weight in model.parameters():
        assert weight.grad is not None
        assert weight.grad.stride() == weight.stride()


def test_batch_norm_is_of_each_part_and_its_statistics_are_the_mean():
    model, inputs = drawn(replace(PLAIN, stem=(8, 8, 8))), batch(8)
    halves = [Shards(model, SideBySide(1)), Shards(model, SideBySide(1))]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    seen, expected = [], []
    for half, part in zip(halves, zip(*(one.chunk(2) for one in inputs), strict=True), strict=True):
        model.load_state_dict(state)
        model.zero_grad()
        half.backward(loss_of, part, seed=0)
        expected.append([gradient.clone() for gradient in gradients(model)])
        seen.append([buffer.clone() for buffer in model.buffers()])
    model.load_state_dict(state)
    Shards(model, SideBySide(2)).backward(loss_of, inputs, seed=0)
    for found, *two in zip(gradients(model), *expected, strict=True):
        torch.testing.assert_close(found, torch.stack(two).mean(0), atol=1e-12, rtol=1e-10)
    assert not torch.equal(seen[0][0], seen[1][0])
    for found, *two in zip(model.buffers(), *seen, strict=True):
        torch.testing.assert_close(found.float(), torch.stack(two).float().mean(0))


def test_weights_are_shared_and_steps_of_the_optimiser_reach_every_part():
    model, inputs = drawn(PLAIN), batch(8)
    shards = Shards(model, SideBySide(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for step in range(5):
        losses.append(shards.backward(loss_of, inputs, step).item())
        assert losses[-1] == pytest.approx(loss_of(model, *inputs).item(), abs=1e-5)
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("layer", [Dropout(0.5), DropPath(0.5)])
def test_chance_depends_on_seed_and_part_alone(layer):
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.weight = layer, nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.layer(x * self.weight)

    model, both = Noise().train(), (torch.ones(400, 2),)
    seen: dict[int, torch.Tensor] = {}

    def keep(one, x):
        y = one(x)
        seen[id(one)] = y.detach()
        return y.mean()

    def draws(seed):
        seen.clear()
        mean = Shards(model, SideBySide(2)).backward(keep, both, seed).item()
        first, second = seen.values()
        return mean, torch.equal(first, second)

    torch.manual_seed(1)
    first = draws(7)
    torch.rand(3)  # what others draw doesn't matter
    assert draws(7) == first
    assert draws(8) != first
    assert first[0] == pytest.approx(1.0, abs=0.15)
    assert not first[1]


def test_a_sharded_run_is_the_same_bits_again(config, faces):
    config = replace(config, train=replace(config.train, shards=2))
    plan = plan_epochs(2, 3)
    runs = [ClassLearner(config, faces, CLASSES) for _ in range(2)]
    for learner in runs:
        for _ in range(4):
            learner.learn(plan)
    states = [learner.state.model.state_dict().values() for learner in runs]
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_every_thread_of_a_cpu_gets_a_part_that_is_not_too_small(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [choose_shards(CPU, size, 8) for size in (1, 8, 16, 31, 128)] == [1, 1, 2, 3, 4]
    assert choose_shards(torch.device("cuda"), 128, 8) == 1
    with_batch_norm = replace(PLAIN, stem=(8, 24), patch_size=(4, 4))
    assert [smallest_part(model) for model in (PLAIN, with_batch_norm)] == [4, 8]


def kept_bytes(model, inputs) -> int:
    """What a forward pass keeps for the way back, weights aside."""
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss_of(model, *inputs)
    return sum(kept.values())


@pytest.mark.parametrize("count", [1, 2])
def test_blocks_computed_again_give_the_same_gradients_from_less_memory(count):
    config = replace(PLAIN, depth=6, dropout=0.2, drop_path_rate=0.3, attention_dropout=0.1)
    kept_all, inputs = drawn(config), batch(8)
    again = drawn(config)
    again.grad_checkpointing = True
    losses = []
    for one in (kept_all, again):
        torch.manual_seed(3)  # which a batch in one part draws from
        losses.append(Shards(one, SideBySide(count)).backward(loss_of, inputs, 3))
    assert torch.equal(*losses)
    for one, other in zip(gradients(kept_all), gradients(again), strict=True):
        assert torch.equal(one, other)
        assert one.any()
    assert kept_bytes(again, inputs) < kept_bytes(kept_all, inputs) / 4
