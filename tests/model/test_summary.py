from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitreous.model.presets import PRESETS, preset
from vitreous.model.summary import summarize
from vitreous.model.vit import ViT

PARAMETERS = {
    "lecture": 283_478_787,
    "lecture-small": 47_232_899,
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "B/16": 86_567_656,
    "L/16": 304_326_632,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
    assert summarize(preset(name)).parameters == PARAMETERS[name]


def test_a_summary_counts_what_a_real_model_has():
    for name in ("Ti/16", "compact-48"):
        model = ViT(preset(name))
        found = summarize(preset(name))
        assert found.parameters == sum(p.numel() for p in model.parameters())
        assert sum(row.parameters for row in found.layers) == found.parameters
        size = preset(name).image_size
        assert model.forward_tokens(torch.zeros(1, 3, *size)).shape[1] == found.tokens


@pytest.mark.parametrize("name", ["Ti/16", "compact-48", "lecture-small"])
def test_operations_are_those_counted_by_hand(name):
    config = preset(name)
    tokens, width = config.num_tokens, config.embed_dim
    block = 2 * tokens * width * 4 * config.attention_dim  # query, key, value, output
    block += 2 * 2 * tokens * tokens * config.attention_dim  # scores and their sums
    block += 2 * 2 * tokens * width * config.mlp_hidden_dim
    total = config.depth * block
    if config.stem:
        side, channels = config.image_size[0], 3
        blocks = config.stem_blocks or (0,) * len(config.stem)
        for out, stride, count in zip(config.stem, config.stem_strides, blocks, strict=True):
            side //= stride
            total += 2 * 9 * (channels + count * 2 * out) * out * side * side
            channels = out
        total += 2 * tokens * channels * width
    else:
        total += 2 * config.num_patches * width * 3 * config.patch_size[0] * config.patch_size[1]
    features = width * config.num_patches if config.pool == "flatten" else width
    for hidden in (*config.head_hidden, config.num_classes):
        total += 2 * features * hidden
        features = hidden
    if config.pool == "seq":
        total += 2 * tokens * width  # the scores
    assert summarize(config).flops == total


def test_attention_pooling_is_counted_too():
    """One query, so that most of it are the keys and values of all patches."""
    mean = preset("Ti/16", pool="mean", class_token=False)
    pooled = replace(mean, pool="map")
    patches, width, hidden = mean.num_patches, mean.embed_dim, mean.mlp_hidden_dim
    own = 2 * width * 2 * width + 2 * patches * width * 2 * width  # query and output, then keys
    own += 2 * 2 * patches * width + 2 * 2 * width * hidden
    assert summarize(pooled).flops - summarize(mean).flops == own
    found = summarize(pooled)
    assert found.parameters == sum(p.numel() for p in ViT(pooled).parameters())


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("compact")])
def test_a_compact_model_is_still_a_vision_transformer(name):
    config = preset(name)
    model = ViT(config).eval()
    blocks = sum(parameter.numel() for parameter in model.blocks.parameters())
    assert blocks >= 0.8 * sum(parameter.numel() for parameter in model.parameters())
    one, two = (summarize(replace(config, depth=depth)).flops for depth in (1, 2))
    assert (two - one) * config.depth >= 0.6 * summarize(config).flops


def test_operations_are_those_that_run():
    from torch.utils.flop_counter import FlopCounterMode

    model = ViT(preset("Ti/16")).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.zeros(1, 3, 224, 224))
    assert summarize(preset("Ti/16")).flops == counter.get_total_flops()


def test_every_preset_can_be_summarised_without_memory():
    for name in PRESETS:
        assert summarize(preset(name)).flops > 0
