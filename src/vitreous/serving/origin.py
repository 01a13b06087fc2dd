"""The weights that a run begins with, and a look back at them; called by `job` and `inquiry`."""

from vitreous.core.console import Console
from vitreous.core.run import RunFolder
from vitreous.errors import RunError, StorageError, UserError, WeightsError
from vitreous.evaluation.results import Ladder
from vitreous.serving.hub import locate
from vitreous.serving.weights import Told, find_weights
from vitreous.training.checkpoint import has_checkpoint
from vitreous.training.config import RunConfig
from vitreous.training.encoder import Encoder, load_encoder


def first_encoder(folder: RunFolder, config: RunConfig, console: Console) -> Encoder | None:
    """What a run begins with; behind its first checkpoint that is not needed any more.

    Raises:
        RunError: where it is gone.
    """
    begun = has_checkpoint(folder.checkpoints) or Ladder.read(folder).has("probe")
    if config.init is None or begun:
        return None
    try:
        return _load(config, console)
    except (RunError, WeightsError) as error:
        raise RunError(
            f"{folder.path} has no checkpoint yet and can't begin: {error}; put the weights back, "
            "or train anew with another --out"
        ) from None


def _load(config: RunConfig, console: Console) -> Encoder:
    assert config.init is not None
    told = Told(None, config.init_preprocess, config.init_num_heads)
    path = locate(config.init, console).path
    return load_encoder(find_weights(path, told, on_note=lambda note: None))


def original_encoder(config: RunConfig, console: Console) -> Encoder | None:
    """What a run began with, for a look back; ``None`` where it was nothing, or is gone."""
    if config.init is None or config.ladder:
        return None
    try:
        return _load(config, console)
    except (UserError, StorageError):
        return None
