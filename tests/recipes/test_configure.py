import os
import tomllib
from pathlib import Path

import pytest
import torch

from vitreous.core.config import dump_toml, merge
from vitreous.data.faces import write_faces
from vitreous.data.folder import list_labelled, list_unlabelled
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.recipes.configure import _named, configure, named_settings, parse_budget
from vitreous.recipes.pace import measure_pictures_per_s
from vitreous.serving.weights import Told
from vitreous.training.config import TrainConfig
from vitreous.training.encoder import Encoder, save_encoder, without_head
from vitreous.training.guard import TooLittleMemory
from vitreous.training.learner import Learner

NAME = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "faces"
    write_faces(folder, 3, size=50)
    return folder


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """One as fast every time; that it is measured rightly is tested of `measure_pictures_per_s`."""
    monkeypatch.setattr("vitreous.recipes.configure.measure_pictures_per_s", lambda config: 1000.0)


def configured(faces, **options):
    return configure(faces, list_labelled(faces), **options).config


def test_the_recipe_follows_the_pictures(faces):
    config = configured(faces)
    assert config.model.image_size == config.preprocess.image_size == (48, 48)
    assert config.model.num_classes == 3
    assert config.train.batch_size == 16
    assert config.train.budget_s == 1200.0
    # A flip in training is what makes a mirror image a picture like those learned from.
    assert config.preprocess.mirror
    assert config.augment.flip == 0.5
    assert configured(faces, image_size=64).model.grid_size == (8, 8)


def test_a_file_is_weaker_than_what_is_named(faces, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[train]\nepochs = 3\nseed = 5\n[model]\nhead_dim = 7\ndepth = 4\n")
    from_file = configured(faces, config_file=file)
    assert (from_file.train.epochs, from_file.train.budget_s) == (3.0, None)
    assert (from_file.model.head_dim, from_file.model.depth) == (7, 4)
    named = configured(
        faces, config_file=file, model="Ti/16", image_size=96, changes={"model": {"depth": 2}}
    )
    assert (named.model.head_dim, named.model.depth, named.model.embed_dim) == (None, 2, 192)
    assert named.preprocess.image_size == named.model.image_size == (96, 96)
    assert named.model.num_classes == 3
    assert named.train.seed == 5


@pytest.mark.parametrize(
    "change", [{"model": {"num_classes": 7}}, {"data": {"source": "elsewhere"}}]
)
def test_what_the_pictures_decide_cannot_be_changed(faces, tmp_path, change):
    key = "model.num_classes" if "model" in change else "data.source"
    with pytest.raises(ConfigError, match=f"{key}: the pictures named decide it"):
        configured(faces, changes=change)
    # A whole file of settings may be of other pictures, and the same said again is no change.
    file = tmp_path / "c.toml"
    file.write_text('[model]\nnum_classes = 7\n[data]\nsource = "elsewhere"\n')
    same = {"model": {"num_classes": 3}, "data": {"source": str(faces)}}
    config = configured(faces, config_file=file, changes=same)
    assert (config.model.num_classes, config.data.source) == (3, str(faces))


def test_pretraining_has_no_mirror_images_to_answer_for(faces, monkeypatch):
    measured = []
    module = "vitreous.recipes.configure.measure_pictures_per_s"
    monkeypatch.setattr(module, lambda config: measured.append(config) or 100.0)
    changes = {"augment": {"flip": 0.0}, "train": {"budget_s": 60.0}}
    config = configure(faces, list_unlabelled(faces), recipe="pretrain", changes=changes).config
    assert (config.augment.flip, config.preprocess.mirror) == (0.0, False)
    assert len(measured) == 1


def test_a_number_of_parts_that_is_named_leaves_a_model_uncompiled(faces, monkeypatch):
    module = "vitreous.recipes.configure.choose_compile"
    monkeypatch.setattr(module, lambda device, budget_s: True)
    named = configure(faces, list_labelled(faces), changes={"train": {"shards": 2}})
    assert (named.config.train.compile, named.config.train.shards) == (False, 2)
    usual = configure(faces, list_labelled(faces))
    assert (usual.config.train.compile, usual.config.train.shards) == (True, 1)
    whys = [one.reasons[-1].why for one in (named, usual)]
    assert whys == ["named", "a GPU, or a compiled model, takes a batch at once"]
    both = {"train": {"shards": 2, "compile": True}}
    with pytest.raises(ConfigError, match="a compiled model has one part"):
        configured(faces, changes=both)


def test_a_budget_asked_for_is_stronger_than_a_files_epochs(faces, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[train]\nepochs = 3\n")
    named = named_settings({}, epochs=None, budget_s=60.0, seed=None, device=None, cache=None)
    train = configured(faces, config_file=file, changes=named).train
    assert (train.epochs, train.budget_s) == (TrainConfig.epochs, 60.0)
    both = merge(named, {"train": {"epochs": 2.0}})
    train = configured(faces, config_file=file, changes=both).train
    assert (train.epochs, train.budget_s) == (2.0, 60.0)


def test_epochs_asked_for_end_a_files_budget_but_none_that_stands_beside_them(faces, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[train]\nbudget_s = 60.0\n")
    for settings, budget in (({}, None), ({"train": {"budget_s": 30.0}}, 30.0)):
        named = named_settings(
            settings, epochs=2.0, budget_s=None, seed=None, device=None, cache=None
        )
        train = configured(faces, config_file=file, changes=named).train
        assert (train.epochs, train.budget_s) == (2.0, budget)


def test_a_runs_own_file_gives_the_same_run(faces, tmp_path):
    for options in ({"changes": {"train": {"epochs": 2}}}, {"model": "lecture-small"}, {}):
        config = configured(faces, **options)
        (tmp_path / "config.toml").write_text(dump_toml(config))
        assert configured(faces, config_file=tmp_path / "config.toml") == config


def test_a_batch_has_a_part_for_every_thread_of_the_machine(faces, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cpu = {"train": {"device": "cpu", "batch_size": 64}}
    listing = list_labelled(faces)
    choice = configure(faces, listing, changes=cpu)
    assert choice.config.train.shards == 4
    assert choice.rows()[-1] == (
        "train.shards",
        "4",
        "one for each thread of this machine, of 8 or more",
    )
    assert configured(faces, changes=merge(cpu, {"train": {"batch_size": 31}})).train.shards == 3
    named = configure(faces, listing, changes=merge(cpu, {"train": {"shards": 2}}))
    assert named.rows()[-1] == ("train.shards", "2", "named")
    with pytest.raises(ConfigError, match=r"train\.shards is 65: it is 1 to train\.batch_size, 64"):
        configured(faces, changes=merge(cpu, {"train": {"shards": 65}}))


def test_mirrored_answers_need_flips_in_training(faces):
    with pytest.raises(ConfigError, match=r"augment\.flip is 0.*preprocess\.mirror=false"):
        configured(faces, changes={"augment": {"flip": 0.0}})
    off = {"augment": {"flip": 0.0}, "preprocess": {"mirror": False}}
    assert not configured(faces, changes=off).preprocess.mirror


def test_a_size_that_is_none_is_named(faces):
    with pytest.raises(ConfigError, match=r"model\.image_size"):
        configured(faces, changes={"model": {"image_size": ["a", 3]}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train = 3", "'train' is a section, not 3"),
        ("model = 'S/16'", "'model' is a section, not 'S/16'"),
        ("data = 'x'", "'data' is a section, not 'x'"),
        ("folds = 5", "'folds' is a section, not 5"),
        ("init_preprocess = 'imagenet'", "'init_preprocess' is 'imagenet', not a list"),
        ("[model]\ndepht = 3", "unknown setting 'model.depht': did you mean 'depth'?"),
    ],
)
def test_a_section_that_is_none_is_named(faces, tmp_path, text, said):
    with pytest.raises(ConfigError) as error:
        configured(faces, changes=tomllib.loads(text))
    assert said in str(error.value)
    with pytest.raises(ConfigError) as error:
        named_settings(tomllib.loads(text), None, None, None, None, None)
    assert said in str(error.value)
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        configured(faces, config_file=file)
    assert f"{file}: " in str(error.value)
    assert said in str(error.value)


def test_a_setting_of_pretraining_goes_with_a_budget(faces):
    listing = list_unlabelled(faces)
    changes = {"train": {"budget_s": 60.0}, "pretrain": {"mask_ratio": 0.6}}
    config = configure(faces, listing, recipe="pretrain", changes=changes).config
    assert config.pretrain
    assert config.pretrain.mask_ratio == 0.6
    assert not config.preprocess.mirror


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("3", 180)]
)
def test_budgets_are_times(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "soon", "-3m", "0", "infh", "nan", "1d"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match="write 90s, 20m"):
        parse_budget(text)


def test_the_pace_is_measured_with_what_was_named(faces, monkeypatch):
    measured = []
    module = "vitreous.recipes.configure.measure_pictures_per_s"
    monkeypatch.setattr(module, lambda config: measured.append(config) or 100.0)
    budget = {"train": {"budget_s": 60.0}}
    config = configured(faces, image_size=96, changes=merge(budget, {"model": {"depth": 2}}))
    assert [one.model for one in measured] == [config.model]
    # A width that is named, by itself or by a preset, is not chosen; how pictures are varied is.
    config = configured(faces, model="Ti/16", changes=budget)
    assert config.train.learning_rate == 1e-3
    assert measured[1].model == config.model
    configured(faces, changes={"train": {"epochs": 3}})
    assert len(measured) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", float("nan")), ("epochs", float("inf")), ("budget_s", float("inf")),
        ("learning_rate", float("nan")), ("clip_norm", float("nan")), ("betas", (0.9, 1.0)),
        ("weight_decay", -1.0), ("final_learning_rate", -5.0), ("ema", 0.9998), ("ema", -0.1),
    ],
)  # fmt: skip
def test_what_no_training_can_use_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"train\.{name} is"):
        TrainConfig(**{name: value})


def test_what_is_told_of_a_checkpoint_leaves_what_the_file_tells_besides(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('init = "x"\ninit_num_heads = 3\ninit_preprocess = ["half"]\n')
    for told in (Told(None, ("clip",)), Told(None, (), 6)):
        from_file, changes = _named(file, {}, None, told)
        both = merge(from_file, changes)
        assert both["init_num_heads"] == (told.num_heads or 3)
        assert both["init_preprocess"] == (told.preprocess or ["half"])


def test_where_memory_is_too_small_the_pace_is_that_of_smaller_pieces(faces, monkeypatch):
    pieces = []

    def measure(self, plan, seconds):
        pieces.append(self.config.train.accumulate)
        if len(pieces) < 3:
            raise TooLittleMemory(self.config.train)
        return 0.5

    monkeypatch.setattr(Learner, "measure_step_s", measure)
    config = configured(faces, changes={"train": {"epochs": 1, "shards": 1}})
    assert measure_pictures_per_s(config) == config.train.batch_size / 0.5
    assert pieces == [1, 2, 4]


def test_published_weights_are_chosen_for_the_device_that_is_named(faces, monkeypatch):
    asked = []

    def choose(wanted):
        asked.append(wanted)
        return torch.device("cpu")

    monkeypatch.setattr("vitreous.recipes.configure.choose_device", choose)
    configured(faces, changes={"train": {"epochs": 1, "device": "cpu"}})
    assert set(asked) == {"cpu"}


def test_the_recipe_may_stand_among_the_settings(faces):
    config = configured(faces, changes={"recipe": "lecture", "train": {"epochs": 1}})
    assert config.recipe == "lecture"
    assert not config.model.stem  # the compact model's
    with pytest.raises(ConfigError, match=r"unknown recipe 'lectur'.*'lecture'"):
        configured(faces, changes={"recipe": "lectur"})


def test_a_recipe_named_beside_a_file_is_the_one_written_down(faces, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('recipe = "finetune"\n[train]\nepochs = 1\n')
    assert configured(faces, config_file=file, recipe="scratch").recipe == "scratch"


def test_folds_share_the_time(faces, monkeypatch):
    monkeypatch.setattr("vitreous.recipes.configure.measure_pictures_per_s", lambda config: 1e6)
    changes = {"train": {"budget_s": 60.0, "epochs": 1e9}}
    assert configured(faces, changes=changes).model.embed_dim == 192
    shared = merge(changes, {"folds": {"count": 5, "repeats": 8}})
    choice = configure(faces, list_labelled(faces), changes=shared)
    assert choice.config.model.embed_dim == 96  # 60 s are 1.3 million pictures a training
    assert "in all 1,317,073" in choice.rows()[1][2]
    assert choice.config.train.budget_s == 60.0


def test_pictures_to_be_held_back_are_not_counted_as_learned_from(tmp_path):
    write_faces(tmp_path / "faces", 40, size=50)
    changes = {"train": {"epochs": 10}, "data": {"calibration_share": 0.25}}
    choice = configure(tmp_path / "faces", list_labelled(tmp_path / "faces"), changes=changes)
    assert "720: 72 pictures times 10" in choice.rows()[1][2]  # of 120


def test_a_cache_is_found_again_from_another_folder(faces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"train": {"epochs": 1}}
    assert configured(faces, changes=changes).data.cache_dir is None
    (tmp_path / "c.toml").write_text('[data]\ncache_dir = "one"\n')
    named = configured(faces, changes=changes, config_file=tmp_path / "c.toml")
    assert named.data.cache_dir == str(tmp_path / "one")
    named = configured(faces, changes=merge(changes, {"data": {"cache_dir": "other"}}))
    assert named.data.cache_dir == str(tmp_path / "other")


def test_low_rank_updates_need_something_to_update(faces):
    with pytest.raises(ConfigError, match=r"train\.lora_rank is 4, but nothing is loaded"):
        configured(faces, changes={"train": {"epochs": 1, "lora_rank": 4}})


def test_another_size_keeps_the_share_that_is_cropped_away(faces, tmp_path):
    """Of what a checkpoint says, of what was told of it, and of a file."""
    given = preset("Ti/16", image_size=(32, 32), depth=1, embed_dim=48)
    prepared = Preprocess(image_size=(32, 32), resize=(36, 36))
    save_encoder(tmp_path / "w", Encoder(given, prepared, without_head(ViT(given).state_dict())))
    for side, cover in ((16, 18), (32, 36), (64, 72)):
        config = configured(faces, init=str(tmp_path / "w"), image_size=side)
        assert config.preprocess.image_size == config.model.image_size == (side, side)
        assert config.preprocess.resize == (cover, cover)
    file = tmp_path / "c.toml"
    file.write_text("[preprocess]\nimage_size = [32, 32]\nresize = [40, 40]\n"
                    "[model]\nimage_size = [32, 32]\n")  # fmt: skip
    assert configured(faces, config_file=file, image_size=48).preprocess.resize == (60, 60)
    assert configured(faces, config_file=file, model="compact-64").preprocess.resize == (80, 80)
    alone = tmp_path / "alone.toml"  # says no size that it would be a share of
    alone.write_text("[preprocess]\nresize = [60, 60]\n")
    assert configured(faces, config_file=alone, image_size=48).preprocess.resize == (60, 60)
    named = {"preprocess": {"resize": (50, 50)}}
    config = configured(faces, config_file=file, image_size=48, changes=named)
    assert config.preprocess.resize == (50, 50)


def test_the_pace_is_that_of_sums_in_the_order_of_training(faces, monkeypatch):
    """And what has to be known before the first product on a GPU is known there."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []

    def measure(self, plan, seconds):
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get(NAME)))
        return 0.5

    monkeypatch.setattr(Learner, "measure_step_s", measure)
    for is_asked in (False, True):
        train = {"epochs": 1, "deterministic": is_asked}
        measure_pictures_per_s(configured(faces, changes={"train": train}))
    assert seen == [(False, None), (True, ":4096:8")]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_ladder_chooses_the_rank_of_its_rungs(faces, tmp_path):
    given = preset("Ti/16", image_size=(32, 32), depth=1, embed_dim=48)
    prepared = Preprocess(image_size=(32, 32))
    save_encoder(tmp_path / "w", Encoder(given, prepared, without_head(ViT(given).state_dict())))
    words = {"recipe": "finetune", "init": str(tmp_path / "w"), "image_size": 32}
    with pytest.raises(ConfigError, match=r"train\.lora_rank is 4.*set ladder\.lora_rank"):
        configured(faces, **words, changes={"train": {"epochs": 1, "lora_rank": 4}})
