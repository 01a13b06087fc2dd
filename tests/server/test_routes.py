"""Every route of a real server, held against what the commands say."""

import base64
import io
import json
import shutil
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from safetensors.torch import save_file

import vitreous
from vitreous.cli import cli
from vitreous.core.console import Console
from vitreous.evaluation.conformal import ConformalScores
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.server.model import Wanted, open_served
from vitreous.serving.weights import NOTHING, Told

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def wanted(run, faces):
    """What ``vitreous predict --json`` prints for a file."""

    def ask(path, *options):
        words = ["predict", str(run), str(path), "--json", "--quiet", *options]
        return json.loads(CliRunner().invoke(cli, words).stdout)[0]

    return ask


def assert_same(found, wanted, name):
    assert list(found) == list(wanted)
    assert found["file"] == name
    assert list(found["probabilities"]) == list(wanted["probabilities"])
    for label, probability in wanted["probabilities"].items():
        assert found["probabilities"][label] == pytest.approx(probability, abs=1e-6)
    rest = {key: value for key, value in wanted.items() if not key.startswith(("prob", "file"))}
    assert {key: found[key] for key in rest} == rest


def test_a_raw_picture_is_one_object_with_the_keys_of_predict(live, faces, wanted):
    for path in sorted(faces.glob("*/00001.png")):
        for kind in ("image/png", "application/octet-stream"):
            answer = live.predict(path.read_bytes(), kind=kind)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert_same(answer.json(), wanted(path), "picture")


def test_sets_and_refusals_are_those_of_predict(live, faces, wanted):
    path = faces / "sad" / "00002.png"
    query = "?sets=0.8&by_class=true&refuse=true"
    found = live.predict(path.read_bytes(), query).json()
    assert {"set", "refused", "reason"} <= set(found)
    assert_same(found, wanted(path, "--sets", "0.8", "--by-class", "--refuse"), "picture")
    noise = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(noise, "png")
    refused = live.predict(noise.getvalue(), "?sets=0.8&refuse=true").json()
    assert (refused["refused"], refused["label"], refused["set"]) == (True, None, [])
    # The same model answers the next one as if nobody had asked for that.
    assert set(live.predict(noise.getvalue()).json()) == {
        "file", "label", "probability", "probabilities"
    }  # fmt: skip


def test_sets_that_the_page_asks_for_are_ready(run, monkeypatch):
    """Their limits take SciPy, whose import would hold up all requests."""
    served = open_served(Wanted(run, NOTHING, workers=1), QUIET)
    served.warm_up()
    monkeypatch.setattr(ConformalScores, "rule", None)
    guard = served.guard(0.9, by_class=False, refuse=True)
    assert guard
    assert guard.rule
    assert guard.rule.coverage == 0.9


def test_what_sets_and_refusals_promise_is_said_when_a_model_is_opened(run, tmp_path, capsys):
    open_served(Wanted(run, NOTHING, workers=1), Console())
    said = " ".join(capsys.readouterr().err.split())
    assert "no promise that sets hold the true class of at least 90 % of such pictures" in said
    assert "such pictures are kept" in said
    vitreous.export(run, tmp_path / "a.onnx", console=QUIET)
    open_served(Wanted(tmp_path / "a.onnx", NOTHING, workers=1), Console())
    assert "no promise that sets hold" in " ".join(capsys.readouterr().err.split())


def test_several_keep_their_order_and_their_names(live, faces, picture, wanted):
    paths = [faces / "sad" / "00000.png", faces / "angry" / "00000.png"]
    first, second = (path.read_bytes() for path in paths)
    files = [
        ("a", ("café.png", first)), ("b", ("x", b"no picture")), ("a", ('a "b".png', second)),
    ]  # fmt: skip
    forms = live.http.post("/v1/predict", files=files, data={"note": "no file"}).json()
    listed = [{"name": name, "data": base64.b64encode(data).decode()} for _, (name, data) in files]
    lists = live.http.post("/v1/predict", json={"pictures": listed}).json()
    for answers in (forms["predictions"], lists["predictions"]):
        assert_same(answers[0], wanted(paths[0]), "café.png")
        assert answers[1]["file"] == "x"
        assert "not a picture" in answers[1]["error"]
        assert_same(answers[2], wanted(paths[1]), answers[2]["file"])
    assert lists["predictions"][2]["file"] == 'a "b".png'
    one = live.http.post("/v1/predict", json={"pictures": [{"data": listed[0]["data"]}]}).json()
    assert [answer["file"] for answer in one["predictions"]] == ["picture"]


def test_what_is_no_picture_is_422_and_says_why(live, picture):
    for data, words in (
        (b"", "the file is empty"),
        (b"not a picture", "not a picture in a known format"),
        (
            b"\x00\x00\x00\x24ftypheic\x00\x00\x00\x00",
            "a HEIC picture, which isn't read: convert it",
        ),
        (picture[: len(picture) // 2], "damaged"),
    ):
        answer = live.predict(data)
        assert answer.status_code == 422
        assert words in answer.json()["detail"]


def test_an_explanation_is_that_of_the_command(live, run, faces):
    path = faces / "happy" / "00003.png"
    answer = live.http.post(
        "/v1/explain?class_name=sad&method=rollout",
        content=path.read_bytes(),
        headers={"content-type": "image/png"},
    )
    found = answer.json()
    wanted = vitreous.explain(run, path, class_name="sad", method="rollout", console=QUIET)
    (explained,) = wanted.pictures
    assert (found["class"], found["method"]) == ("sad", "rollout")
    assert found["passed"] == wanted.checks["rollout"].passed
    scores = explained.maps["rollout"].faithfulness
    assert found["scores"]["insertion"] == pytest.approx(scores.insertion, abs=1e-5)
    assert found["box"] == [0, 0, 1, 1]
    heat = Image.open(io.BytesIO(base64.b64decode(found["heatmap"])))
    assert (heat.mode, heat.size) == ("RGBA", (32, 32))
    values = explained.maps["rollout"].values
    opacity = np.asarray(heat)[..., 3].astype(float)
    assert np.corrcoef(opacity.ravel(), np.sqrt(values - values.min()).ravel())[0, 1] > 0.99


def test_an_explanation_by_weights_that_are_gone_is_503(serving, run, tmp_path, picture):
    """The model itself is in memory, and answers on."""
    mine = tmp_path / "mine"
    shutil.copytree(run, mine)
    with serving(mine) as live:
        (mine / "best.safetensors").unlink()
        answer = live.http.post(
            "/v1/explain", content=picture, headers={"content-type": "image/png"}
        )
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "reload" in answer.json()["detail"]
        assert live.predict(picture).status_code == 200


def test_an_explanation_lies_over_the_part_that_was_seen(live, faces):
    wide = io.BytesIO()
    Image.open(faces / "happy" / "00000.png").resize((96, 32)).save(wide, "png")
    found = live.http.post(
        "/v1/explain?method=attention",
        content=wide.getvalue(),
        headers={"content-type": "image/png"},
    ).json()
    assert found["box"] == pytest.approx([1 / 3, 0, 1 / 3, 1])


@pytest.mark.parametrize(
    ("query", "words"),
    [("class_name=hapy", "did you mean 'happy'"), ("method=guess", "unknown method 'guess'")],
)
def test_an_explanation_of_what_is_not_there_says_what_is(live, picture, query, words):
    answer = live.http.post(
        f"/v1/explain?{query}", content=picture, headers={"content-type": "image/png"}
    )
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_the_model_says_what_it_is_and_allows(live):
    found = live.http.get("/v1/model").json()
    assert (found["name"], found["version"]) == ("faces", version("vitreous"))
    assert (found["classes"], found["image_size"]) == (["angry", "happy", "sad"], [32, 32])
    assert (found["runtime"], found["precision"]) == ("torch", "float32")
    assert found["sets"] is found["refuse"] is found["explain"] is True
    assert (found["max_bytes"], found["max_pictures"]) == (200_000, 4)
    assert "JPEG" in found["formats"]


def test_health_and_documentation_answer_without_loading_anything(live):
    assert live.http.get("/healthz").json() == {"status": "ok"}
    assert live.http.get("/readyz").json() == {"status": "ready"}
    page = live.http.get("/docs").text
    described = live.http.get("/openapi.json").json()
    for path in described["paths"]:
        assert path in page
    for status in ("400", "401", "403", "408", "413", "415", "422", "429", "431", "503"):
        assert status in described["paths"]["/v1/predict"]["post"]["responses"], status
    assert "src=" not in page
    assert "://" not in page.replace("http://127.0.0.1", "")


def test_what_is_counted_is_what_was_asked(live, picture):
    def counted():
        text = live.http.get("/metrics").text
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = counted()
    for _ in range(3):
        live.predict(picture)
    live.predict(b"none")
    after = counted()

    def more(*key):
        return after.get(key, 0) - before.get(key, 0)

    assert more("vitreous_requests_total", "/v1/predict", "200") == 3
    assert more("vitreous_requests_total", "/v1/predict", "422") == 1
    assert more("vitreous_pictures_total", "answered") == 3
    assert more("vitreous_pictures_total", "unreadable") == 1
    assert after["vitreous_pending_pictures",] == 0
    assert more("vitreous_picture_seconds_count", "classify") == 3


def test_a_checkpoint_of_another_library_is_served_too(serving, tmp_path, monkeypatch, picture):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = replace(preset("Ti/16"), image_size=(32, 32), depth=1, num_classes=3)
    path = tmp_path / "vit.safetensors"
    save_file(ViT(small).state_dict(), path)
    with serving(path, Wanted(path, Told(preprocess=("half",)))) as live:
        (tmp_path / "picture").write_bytes(picture)
        wanted = vitreous.predict(path, tmp_path / "picture", preprocess="half", console=QUIET)
        assert_same(live.predict(picture).json(), wanted[0], "picture")
        assert live.http.get("/v1/model").json()["sets"] is False
        answer = live.predict(picture, "?sets=0.9")
        assert answer.status_code == 422
        assert "isn't calibrated" in answer.json()["detail"]


def test_it_is_called_like_its_folder_or_as_it_is_told(run, serving, monkeypatch):
    monkeypatch.chdir(run)
    for named, name in ((None, "faces"), ("Our faces", "Our faces")):
        with serving(run, Wanted(".", NOTHING, name=named)) as server:
            assert server.http.get("/v1/model").json()["name"] == name


def test_a_sealed_file_is_served_like_its_run(live, run, serving, tmp_path, picture):
    assert "a sealed onnx file" in CliRunner().invoke(cli, ["serve", "--help"]).stdout
    sealed = vitreous.export(run, tmp_path / "faces.onnx", console=QUIET)
    query = "?sets=0.9&refuse=true"
    with serving(run, Wanted(sealed, NOTHING)) as server:
        about, of_run = (one.http.get("/v1/model").json() for one in (server, live))
        found, expected = (one.predict(picture, query).json() for one in (server, live))
        explained = server.http.post(
            "/v1/explain", content=picture, headers={"content-type": "image/png"}
        )
        other = server.predict(picture, "?sets=0.87")
    assert explained.status_code == 501
    assert (other.status_code, "0.9" in other.json()["detail"]) == (422, True)
    assert about["explain"] is False
    assert about["coverages"] == [0.8, 0.9, 0.95, 0.99]
    assert "faces" in about["card"]
    for key in ("classes", "image_size", "sets", "refuse"):
        assert about[key] == of_run[key]
    assert list(found) == list(expected)
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    for key in ("label", "set", "refused", "reason"):
        assert found[key] == expected[key]
