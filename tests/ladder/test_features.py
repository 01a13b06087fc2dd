from dataclasses import replace

import torch

from vitreous.data.config import DataConfig
from vitreous.data.preprocess import Preprocess
from vitreous.evaluation.inference import features_of_pixels
from vitreous.ladder.features import _network, drawn_model
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.training.config import RunConfig, TrainConfig
from vitreous.training.encoder import Encoder, without_head


def test_features_are_what_the_head_of_the_kept_model_sees():
    """Also where parts below the head are new, and drawn."""
    given = preset("Ti/16", image_size=(32, 32), depth=1, embed_dim=48, num_classes=7)
    prepared = Preprocess(image_size=(32, 32))
    encoder = Encoder(given, prepared, without_head(ViT(given).state_dict()))
    new = replace(given, num_classes=3, pool="map", head_hidden=(16,))
    train = TrainConfig(device="cpu", precision="float32")
    config = RunConfig("finetune", DataConfig("faces"), new, prepared, train=train)
    network = _network(config, encoder)
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    features = torch.as_tensor(features_of_pixels(network, pixels, prepared))
    kept = encoder.load_into(drawn_model(new)).eval()
    torch.nn.init.normal_(kept.head.weight)  # which is drawn as zero
    images = pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(prepared.mean)[:, None, None]
    images = images / torch.tensor(prepared.std)[:, None, None]
    with torch.inference_mode():
        torch.testing.assert_close(kept.head(features), kept(images), atol=1e-4, rtol=1e-4)
