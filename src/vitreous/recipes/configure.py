"""From what a person said, and what the pictures are, to every setting of a run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vitreous.core.config import (
    check_types,
    did_you_mean,
    from_mapping,
    load_toml,
    merge,
    to_mapping,
)
from vitreous.core.console import Console
from vitreous.data.config import DataConfig
from vitreous.data.dataset import UNLABELLED_VALID_SHARE, typical_side
from vitreous.data.folder import Listing
from vitreous.data.overlay import Overlay, read_overlay
from vitreous.data.preprocess import Preprocess
from vitreous.data.split import VALID_SHARE
from vitreous.errors import ConfigError
from vitreous.model.presets import preset
from vitreous.recipes.facts import DEFAULT_BUDGET_S, Choice, Facts, Reason
from vitreous.recipes.finetune import finetune
from vitreous.recipes.lecture import lecture
from vitreous.recipes.pace import measure_pictures_per_s
from vitreous.recipes.pretrain import pretrain
from vitreous.recipes.pretrained import choose_pretrained
from vitreous.recipes.scratch import scratch
from vitreous.serving.hub import HubId, locate
from vitreous.serving.weights import NOTHING, Told, find_own_weights, find_weights, is_own
from vitreous.training.config import Device, FoldsConfig, RunConfig, TrainConfig
from vitreous.training.device import choose_compile, choose_device
from vitreous.training.distributed import team_for
from vitreous.training.encoder import Encoder, load_encoder
from vitreous.training.shards import choose_shards, smallest_part

RECIPES = {"scratch": scratch, "finetune": finetune, "lecture": lecture, "pretrain": pretrain}


def configure(
    source: Path,
    listing: Listing,
    *,
    recipe: str | None = None,
    model: str | None = None,
    image_size: int | None = None,
    init: str | None = None,
    told: Told = NOTHING,
    console: Console | None = None,
    config_file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Choice:
    """Let the recipe choose, then apply what the person named.

    An encoder to begin with brings model and preprocessing; the recipe "finetune" may change its
    size. On top of them the file goes first, then the preset and the image size, single changes
    last.

    Args:
        source: the folder or table.
        listing: what is in it.
        recipe: which function chooses what is not named; by default the file's, or "scratch".
        model: a preset's name instead of the recipe's choice.
        image_size: side in pixels instead of the recipe's choice.
        init: run, weights file or another library's checkpoint to begin with, whose model is used:
            a path, a hub's id, or "auto".
        told: what is known of a checkpoint beside its file.
        console: is told what had to be assumed of it, and what is downloaded.
        config_file: TOML with all or some settings.
        changes: nested settings.

    Raises:
        ConfigError: for a wrong name or value, or a model that the weights don't fit.
        RunError: where the weights can't be read.
    """
    from_file, changes = _named(config_file, changes or {}, init, told)
    recipe = recipe or str(merge(from_file, changes).get("recipe", "scratch"))
    if recipe not in RECIPES:
        raise ConfigError(f"unknown recipe '{recipe}': {did_you_mean(recipe, RECIPES)}")
    console = console or Console(quiet=True)
    side = typical_side(listing)
    num_classes = max(len(listing.classes), 1)  # an output without labels is never used
    # The pictures decide these two, also where a run's whole file is given for other pictures.
    decided = {"data": {"source": str(source)}, "model": {"num_classes": num_classes}}
    _check_undecided(changes, decided)
    named, why_init = _choose_init(merge(from_file, changes), recipe, side, console)
    encoder, begun = _begin(named, console)
    changes = merge(changes, begun)
    # Only "finetune" chooses a size for the pictures, and only where nobody did.
    keeps_size = recipe != "finetune" or any(
        word.startswith(("crop=", "resize=")) for word in named.get("init_preprocess") or ()
    )
    brought = encoder if keeps_size else None
    wanted = _wanted(brought, from_file, model, image_size, changes)
    if listing.classes and (recipe == "pretrain" or "pretrain" in wanted):
        raise ConfigError("'pretrain' is for learning without labels: vitreous pretrain")
    wanted = merge(wanted, decided)
    if place := _section(wanted, "data").get("cache_dir"):  # to be found from another folder, too
        wanted = merge(wanted, {"data": {"cache_dir": str(Path(place).absolute())}})
    wanted["recipe"] = recipe

    def applied(chosen: RunConfig) -> RunConfig:
        # What a recipe measures on its way to pretraining is no pretraining yet.
        mine = {key: wanted[key] for key in wanted if key != "pretrain" or chosen.pretrain}
        if recipe == "pretrain":  # which has no answers for mirror images
            chosen = replace(chosen, preprocess=replace(chosen.preprocess, mirror=False))
        config = from_mapping(RunConfig, merge(to_mapping(chosen), mine))
        return from_mapping(RunConfig, merge(to_mapping(config), _fitted(config, mine)))

    facts = Facts(
        source=str(source),
        num_pictures=_num_pictures(listing, wanted),
        num_classes=num_classes,
        typical_side=side,
        image_size=_named_side(wanted),
        **_length(wanted),
        trainings=_trainings(wanted),
        embed_dim=_named_width(wanted),
        init=changes.get("init"),
        encoder=encoder,
        rungs=_named_rungs(wanted),
        pictures_per_s=lambda chosen: measure_pictures_per_s(applied(chosen)),
    )
    choice = RECIPES[recipe](facts)
    config = applied(choice.config)
    if encoder:
        encoder.check_fits(config.model)
    if config.ladder and config.train.lora_rank:
        raise ConfigError(
            f"train.lora_rank is {config.train.lora_rank}, but the ladder's rungs choose it: set "
            "ladder.lora_rank, or take --tune lora"
        )
    choice = choice.applied_to(config)
    why_shards = Reason(("train.shards",), _why_shards(config, wanted))
    return replace(choice, reasons=(*why_init, *choice.reasons, why_shards))


def _why_shards(config: RunConfig, wanted: Mapping[str, Any]) -> str:
    if "shards" in _section(wanted, "train"):
        return "named"
    if config.train.compile or choose_device(config.train.device).type != "cpu":
        return "a GPU, or a compiled model, takes a batch at once"
    return f"one for each thread of this machine, of {smallest_part(config.model)} or more"


def _named(
    config_file: Path | None, changes: Mapping[str, Any], init: str | None, told: Told
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the file, and those named beside it, as nested settings."""
    from_file = _load(config_file)
    check_types(RunConfig, changes)
    if _section(changes, "train").get("budget_s") is not None:
        from_file.get("train", {}).pop("epochs", None)  # the recipe says how many at most
    if init:
        changes = merge(changes, {"init": init})
    # What isn't told of a checkpoint may stand in the file.
    if told.preprocess:
        changes = merge(changes, {"init_preprocess": told.preprocess})
    if told.num_heads is not None:
        changes = merge(changes, {"init_num_heads": told.num_heads})
    return from_file, dict(changes)


def _fitted(config: RunConfig, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What only this machine decides, with what was named over it."""
    train, smallest = config.train, smallest_part(config.model)
    device = choose_device(train.device)
    own_s = train.budget_s and train.budget_s / _trainings(wanted)
    named = _section(wanted, "train")
    # A compiled model has one part.
    fused = choose_compile(device, own_s) and named.get("shards", 1) == 1
    fused = named.get("compile", fused)
    processes = team_for(train.parallel).size
    shards = choose_shards(device, train.batch_size, smallest, fused, processes)
    return merge({"train": {"compile": fused, "shards": shards}}, wanted)


def _choose_init(
    named: Mapping[str, Any], recipe: str, side: int, console: Console
) -> tuple[Mapping[str, Any], tuple[Reason, ...]]:
    """Put published weights for "auto", with the reason; where nothing is said, say what it does.

    Nothing is downloaded unasked: without a word about it, training is from scratch.
    """
    is_silent = "init" not in named
    if named.get("init") != "auto" and not (is_silent and recipe == "scratch"):
        return named, ()
    chosen, why = choose_pretrained(
        side, choose_device(_section(named, "train").get("device", "auto")).type != "cpu"
    )
    if is_silent:
        console.info(f"from scratch; --weights auto would begin with {chosen}")
        return named, ()
    console.info(f"beginning with {chosen}: {why}")
    reason = Reason(("init",), f"{why}; {chosen.licence}")
    return merge(named, {"init": str(HubId(chosen.id))}), (reason,)


def _begin(named: Mapping[str, Any], console: Console) -> tuple[Encoder | None, dict[str, Any]]:
    """The encoder to begin with, and where it is as a run should write it down."""
    path = named.get("init")
    told = Told(None, tuple(named.get("init_preprocess") or ()), named.get("init_num_heads"))
    if not path:
        if told != NOTHING:
            raise ConfigError(
                "--preprocess and --num-heads are about a checkpoint: name it with --weights, or "
                "leave them out"
            )
        return None, {}
    place = locate(path, console)
    encoder = load_encoder(find_weights(place.path, told, console.info))
    if place.id:
        return encoder, {"init": str(place.id)}
    lasting = find_own_weights(place.path) if is_own(place.path) else place.path
    return encoder, {"init": str(lasting.absolute())}


def _wanted(
    encoder: Encoder | None,
    from_file: Mapping[str, Any],
    model: str | None,
    image_size: int | None,
    changes: Mapping[str, Any],
) -> dict[str, Any]:
    """What was named, as nested settings, the stronger over the weaker."""
    wanted: dict[str, Any] = {}
    if encoder:
        wanted = {"model": asdict(encoder.config), "preprocess": asdict(encoder.preprocess)}
        # How often a picture is looked at is the new run's choice.
        del wanted["preprocess"]["mirror"]
    wanted = merge(wanted, from_file)
    if model:
        wanted = merge(wanted, {"model": asdict(preset(model))})
        wanted = _at_size(wanted, wanted["model"]["image_size"])
    if image_size is not None:
        wanted = _at_size(wanted, (image_size, image_size))
    return merge(wanted, changes)


def _at_size(wanted: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The same for another size; what is cropped away stays the same share of a picture."""
    preprocess: dict[str, Any] = {"image_size": size}
    named = _section(wanted, "preprocess")
    sizes = {key: named[key] for key in ("image_size", "resize") if named.get(key)}
    if len(sizes) == 2:
        preprocess["resize"] = from_mapping(Preprocess, sizes, "preprocess.").at(size).resize
    return merge(wanted, {"model": {"image_size": size}, "preprocess": preprocess})


def _load(config_file: Path | None) -> dict[str, Any]:
    """A file's settings; none without a file."""
    if config_file is None:
        return {}
    from_file = load_toml(config_file)
    try:
        check_types(RunConfig, from_file)
    except ConfigError as error:
        raise ConfigError(f"{config_file}: {error}") from None
    return from_file


def _check_undecided(changes: Mapping[str, Any], decided: Mapping[str, Any]) -> None:
    """Refuse a change of what isn't a person's to choose."""
    for section, values in decided.items():
        for key, value in values.items():
            if _section(changes, section).get(key, value) != value:
                raise ConfigError(
                    f"{section}.{key}: the pictures named decide it ({value}), so leave it out"
                )


def _section(named: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What was named of a section."""
    return named.get(name) or {}


def _length(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The epochs and the budget named, for `Facts`; the usual budget where neither was."""
    train = _section(wanted, "train")
    if not {"epochs", "budget_s"} & train.keys():
        return {"budget_s": DEFAULT_BUDGET_S}
    named = from_mapping(TrainConfig, train, "train.")
    return {"epochs": named.epochs, "budget_s": named.budget_s}


def _num_pictures(listing: Listing, wanted: Mapping[str, Any]) -> int:
    """Of those listed, how many will be trained on, nearly."""
    splits = Counter(sample.split or "train" for sample in listing.samples)
    valid = VALID_SHARE if listing.classes else UNLABELLED_VALID_SHARE
    calibration = from_mapping(DataConfig, wanted["data"], "data.").calibration_share
    kept = float(splits["train"])
    for part, share in (("valid", valid), ("calibration", calibration)):
        kept *= 1 if splits[part] else 1 - share
    return round(kept)


def _trainings(wanted: Mapping[str, Any]) -> int:
    """How many share the budget: those of folds, and the one that is kept."""
    if not (folds := wanted.get("folds")):
        return 1
    found = from_mapping(FoldsConfig, folds, "folds.")
    return found.count * found.repeats + 1


def _named_width(wanted: Mapping[str, Any]) -> int | None:
    width = _section(wanted, "model").get("embed_dim")
    return width if width and width > 0 else None  # else an error said later


def _named_side(wanted: Mapping[str, Any]) -> int | None:
    size = _section(wanted, "model").get("image_size")
    return max(size) if size else None


def _named_rungs(wanted: Mapping[str, Any]) -> tuple[str, ...] | None:
    rungs = _section(wanted, "ladder").get("rungs")
    return tuple(rungs) if rungs else None


def named_section(
    config_file: Path | None, changes: Mapping[str, Any], name: str
) -> Mapping[str, Any]:
    """What a file of settings and others over it say of a section; nothing where they don't.

    Raises:
        ConfigError: for a file of settings that can't be used.
    """
    return _section(merge(_load(config_file), changes), name)


def named_overlay(config_file: Path | None, changes: Mapping[str, Any]) -> Overlay | None:
    """The changes to a source's listing that the settings name, the stronger over the weaker.

    Raises:
        ConfigError: for a file of settings that can't be used.
        DataError: where the changes can't be read.
    """
    path = named_section(config_file, changes, "data").get("overlay")
    return read_overlay(Path(path)) if path else None


def named_settings(
    settings: Mapping[str, Any],
    epochs: float | None,
    budget_s: float | None,
    seed: int | None,
    device: Device | None,
    cache: Path | None,
    overlay: Path | None = None,
) -> dict[str, Any]:
    """Nested settings, and over them what has an argument of its own.

    Epochs end a budget that a file names, not one that stands beside them.

    Raises:
        ConfigError: for an unknown setting or one of another type.
    """
    check_types(RunConfig, settings)
    weaker: dict[str, Any] = {"train": {"budget_s": None}} if epochs is not None else {}
    train: dict[str, Any] = {}
    if epochs is not None:
        train["epochs"] = epochs
    if budget_s is not None:
        train["budget_s"] = budget_s
    if seed is not None:
        train["seed"] = seed
    if device is not None:
        train["device"] = device
    data = {"cache_dir": str(cache.absolute())} if cache else {}
    if overlay:
        data["overlay"] = str(overlay.absolute())
    return merge(merge(weaker, settings), {"train": train, "data": data})


def parse_budget(text: str) -> float:
    """Seconds of "90s", "20m" or "1.5h"; a bare number counts minutes.

    Raises:
        ConfigError: for anything else, or nothing above 0.

    Example:
        >>> parse_budget("20m")
        1200.0
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "m")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"budget '{text}' is not a time: write 90s, 20m or 1.5h")
    return seconds
