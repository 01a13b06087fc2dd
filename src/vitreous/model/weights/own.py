"""Files of vitreous itself: weights of a trained run, or a pretrained encoder."""

import json
from dataclasses import replace

from vitreous.core.config import from_mapping
from vitreous.core.files import METADATA_KEY
from vitreous.errors import ConfigError, WeightsError
from vitreous.model.config import ModelConfig
from vitreous.model.weights.files import Source
from vitreous.model.weights.naming import as_numbers
from vitreous.model.weights.settings import Preprocessing, names_in_order
from vitreous.model.weights.translation import Translation, Wanted


def matches(source: Source) -> bool:
    """Whether the file names its model as ours do."""
    return METADATA_KEY in source.metadata


def translate(source: Source, wanted: Wanted) -> Translation:
    """Read weights with the configuration, preprocessing and class names in their metadata.

    Raises:
        WeightsError: where the metadata is of another version.
    """
    try:
        metadata = json.loads(source.metadata[METADATA_KEY])
        config = from_mapping(ModelConfig, metadata["model"])
        preprocessing = from_mapping(Preprocessing, metadata["preprocess"])
        classes = names_in_order(metadata.get("classes"))
    except (KeyError, TypeError, ValueError, RecursionError, ConfigError) as error:
        raise WeightsError(f"{source.path} is from another version or damaged: {error}") from None
    if wanted.num_heads not in (None, config.num_heads):
        raise WeightsError(f"{source.path} has {config.num_heads} heads, not {wanted.num_heads}")
    state = {name: as_numbers(source.path, name, t) for name, t in source.tensors.items()}
    notes = []
    if "head.weight" not in state:
        config = replace(config, num_classes=0, head_hidden=())
        if not any(name.startswith(("attn_pool.", "fc_norm.")) for name in state):
            pool = "mean" if config.pool in ("map", "seq") else config.pool
            config = replace(config, fc_norm=False, pool=pool)
        notes.append("a pretrained encoder: it has no head")
    return Translation("vitreous", config, state, classes, preprocessing, tuple(notes))
