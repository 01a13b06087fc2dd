import pytest

from vitreous.core.console import Console
from vitreous.data.faces import write_faces
from vitreous.data.folder import list_labelled, list_unlabelled
from vitreous.recipes.configure import configure
from vitreous.recipes.pretrained import SMALL, TINY, choose_pretrained


@pytest.mark.parametrize("model", [TINY, SMALL], ids=lambda model: model.id)
def test_what_is_said_of_weights_is_what_timm_says(timm, model):
    name = model.id.removeprefix("timm/")
    stated = timm.models.get_pretrained_cfg(name)
    assert stated.hf_hub_id == model.id
    assert stated.license == model.licence.lower()
    count = sum(tensor.numel() for tensor in timm.create_model(name).state_dict().values())
    assert model.parameters == pytest.approx(count / 1e6, abs=0.05)
    assert model.megabytes == pytest.approx(4 * count / 1e6, abs=0.05)


def test_small_pictures_and_slow_machines_get_small_weights():
    chosen = {
        (side, fast): choose_pretrained(side, fast) for side in (48, 400) for fast in (False, True)
    }
    assert [key for key, (model, _) in chosen.items() if model is SMALL] == [(400, True)]
    assert "shorter side is 48 px" in chosen[48, True][1]
    assert "a CPU computes" in chosen[400, False][1]


def test_only_who_has_not_chosen_is_told_of_them(tmp_path, capsys):
    write_faces(tmp_path / "faces", 2, size=32)
    labelled, unlabelled = list_labelled(tmp_path / "faces"), list_unlabelled(tmp_path / "faces")
    epochs = {"train": {"epochs": 1}}
    configure(tmp_path, labelled, changes=epochs, console=Console())
    assert f"--weights auto would begin with {TINY}" in " ".join(capsys.readouterr().err.split())
    for listing, recipe, changes, console in (
        (labelled, "scratch", {"init": None}, Console()),
        (labelled, "scratch", {}, Console(quiet=True)),
        (labelled, "lecture", {}, Console()),
        (unlabelled, "pretrain", {}, Console()),
    ):
        configure(tmp_path, listing, recipe=recipe, changes=epochs | changes, console=console)
        assert capsys.readouterr().err == ""
