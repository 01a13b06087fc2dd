import pytest
import torch

from vitreous.core.config import from_mapping, merge, to_mapping
from vitreous.recipes.facts import Choice, Facts
from vitreous.recipes.pace import measure_pictures_per_s
from vitreous.recipes.scratch import scratch
from vitreous.training.config import RunConfig


def facts(**changes) -> Facts:
    return Facts(
        **{
            "source": "faces",
            "num_pictures": 10_000,
            "num_classes": 3,
            "typical_side": 48,
            **changes,
        }
    )


def width(choice: Choice) -> int:
    return choice.config.model.embed_dim


def test_time_and_the_machine_decide_the_width():
    slow, medium, fast = (
        scratch(
            facts(num_pictures=20_000, budget_s=600.0, pictures_per_s=lambda _, rate=rate: rate)
        )
        for rate in (50.0, 5000.0, 10_000.0)
    )
    assert (width(slow), width(medium), width(fast)) == (96, 96, 192)
    assert slow.rows()[1][2].startswith("this machine learns from 50 a second at width 96")
    assert slow.config.train.budget_s == 600.0


def test_with_epochs_no_clock_decides():
    def fail(_: RunConfig) -> float:
        raise AssertionError("nothing may be measured")

    sizes = [width(scratch(facts(epochs=epochs, pictures_per_s=fail))) for epochs in (300.0, 400.0)]
    assert sizes == [96, 192]
    assert scratch(facts(epochs=7.0)).config.train.budget_s is None


def test_long_runs_vary_their_pictures_more():
    chances = [
        (augment.color_chance, augment.erase_chance, augment.mix_chance)
        for count, epochs in ((12_969, 83.0), (12_969, 200.0), (1_000, 300.0), (50_000, 90.0))
        for augment in [scratch(facts(num_pictures=count, epochs=epochs)).config.augment]
    ]
    plain, varied = (0.3, 0.0, 0.0), (0.5, 0.25, 0.3)
    assert chances == [plain, varied, plain, plain]
    named = facts(budget_s=3600.0, pictures_per_s=lambda _: 1e4, embed_dim=96)
    assert scratch(named).config.augment.mix_chance == 0.3


def test_epochs_bound_what_a_fast_machine_sees():
    few = facts(num_pictures=100, budget_s=6000.0, pictures_per_s=lambda _: 1e6)
    _, _, why = scratch(few).rows()[1]
    assert "1,000,000 a second at width 96, in all 30,000: 100 pictures times 300;" in why


def test_a_narrow_model_learns_faster():
    rates = [
        scratch(facts(epochs=1.0, embed_dim=named)).config.train.learning_rate
        for named in (None, 192, 384)
    ]
    assert rates == [3e-3, 1e-3, 4e-4]


@pytest.mark.parametrize(("side", "chosen"), [(28, 32), (48, 48), (56, 48), (64, 64), (1000, 96)])
def test_the_pictures_decide_the_resolution(side, chosen):
    assert scratch(facts(typical_side=side)).config.model.image_size == (chosen, chosen)


def test_reasons_hold_for_what_came_of_it():
    choice = scratch(facts())
    side = {"image_size": [96, 96]}
    config = from_mapping(
        RunConfig, merge(to_mapping(choice.config), {"model": side, "preprocess": side})
    )
    before, after = choice.rows(), choice.applied_to(config).rows()
    assert after[0] == ("model.image_size", "96x96", "named; the recipe would take 48x48")
    assert after[1:] == before[1:]


def test_measuring_the_pace_leaves_random_streams_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert measure_pictures_per_s(scratch(facts(epochs=1.0, typical_side=32)).config) > 0
    assert torch.rand(1) == expected
