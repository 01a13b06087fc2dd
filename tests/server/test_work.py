"""Threads that take pictures out of the line: alone, and as they would on a GPU."""

import gc
import re
import threading
import time
import weakref
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
import torch

import vitreous
from tests.server.conftest import PATIENCE_S
from vitreous.core.console import Console
from vitreous.core.threads import torch_threads
from vitreous.errors import UnreadablePicture
from vitreous.server import bodies, explained
from vitreous.server.bodies import Picture
from vitreous.server.explained import Explainer
from vitreous.server.model import Served, Wanted, open_served
from vitreous.serving.weights import NOTHING
from vitreous.training.classifier import Classifier


@pytest.fixture
def batches(monkeypatch):
    """How many pictures were classified at once, time after time."""
    found: list[int] = []
    real = Served.answers

    def answers(self, worker, names, pictures, guard):
        found.append(len(names))
        return real(self, worker, names, pictures, guard)

    monkeypatch.setattr(Served, "answers", answers)
    return found


@pytest.mark.parametrize("batch", [1, 8])
def test_answers_are_the_same_in_batches(serving, run, faces, batches, batch):
    paths = sorted(faces.glob("*/*.png"))[::3]
    wanted = vitreous.predict(run, *paths, sets=0.8, console=Console(quiet=True))
    files = [("a", (str(path), path.read_bytes())) for path in paths]
    files.insert(5, ("a", ("broken", b"broken")))
    with serving(run, batch=batch, batch_wait_ms=500.0, workers=2, queue=50) as live:
        batches.clear()
        both = {}

        def ask(query: str) -> None:
            both[query] = httpx.post(
                f"{live.http.base_url}/v1/predict{query}", files=files, timeout=PATIENCE_S
            ).json()["predictions"]

        threads = [threading.Thread(target=ask, args=(query,)) for query in ("", "?sets=0.8")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(batches) == 2 * len(paths)
    assert max(batches) == 1 if batch == 1 else max(batches) > 1
    for query, found in both.items():
        assert found.pop(5)["file"] == "broken"
        for one, other in zip(found, wanted, strict=True):
            assert (one["file"], one["label"]) == (other["file"], other["label"])
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
            assert ("set" in one) == bool(query)
            if query:
                assert one["set"] == other["set"]


def test_an_answer_that_takes_too_long_is_503_and_its_place_is_free_again(
    serving, run, picture, monkeypatch
):
    hold = threading.Event()
    real = Served.answers

    def slow(self, *rest):
        hold.wait(PATIENCE_S)
        return real(self, *rest)

    with serving(run, timeout_s=0.5, workers=1, queue=1) as live:
        monkeypatch.setattr(Served, "answers", slow)
        late = live.predict(picture)
        assert late.status_code == 503
        assert late.headers["retry-after"] == "1"
        # Its worker is still busy: one more may wait, and no third one.
        assert live.predict(picture).status_code == 503
        assert live.predict(picture).status_code == 429
        hold.set()
        while live.predict(picture).status_code != 200:
            pass
        metrics = live.http.get("/metrics").text
        [late] = re.findall(r'vitreous_pictures_total\{result="late"\} (\S+)', metrics)
        assert float(late) >= 2  # a busy machine may answer one more too late


def test_too_little_memory_for_a_picture_is_no_fault_of_the_picture(
    serving, run, picture, monkeypatch
):
    def without_memory(self, *rest):
        raise UnreadablePicture("can't be read: memory is too small", passing=True)

    with serving(run) as live:
        monkeypatch.setattr(Served, "fitted", without_memory)
        answer = live.predict(picture)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["detail"] == "can't be read: memory is too small: try again"
        assert 'vitreous_pictures_total{result="failed"} 1.0' in live.http.get("/metrics").text


def explain(live, picture: bytes) -> httpx.Response:
    return httpx.post(
        f"{live.http.base_url}/v1/explain",
        content=picture,
        headers={"content-type": "image/png"},
        timeout=PATIENCE_S,
    )


@pytest.fixture
def held(monkeypatch):
    """Explanations go on once this is set."""
    go_on = threading.Event()
    real = Explainer.explain

    def slow(self, *rest, **named):
        go_on.wait(PATIENCE_S)
        return real(self, *rest, **named)

    monkeypatch.setattr(Explainer, "explain", slow)
    yield go_on
    go_on.set()


def test_explanations_leave_pictures_their_places(serving, run, picture, held):
    answers: SimpleQueue[httpx.Response] = SimpleQueue()
    with serving(run, workers=1, queue=1) as live:
        threads = [
            threading.Thread(target=lambda: answers.put(explain(live, picture))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for _ in range(2):  # one is being made and two wait
            away = answers.get(timeout=PATIENCE_S)
            assert (away.status_code, away.headers["retry-after"]) == (429, "1")
            assert "explanations" in away.json()["detail"]
        assert live.predict(picture).status_code == 200
        assert "vitreous_pending_pictures 0.0" in live.http.get("/metrics").text
        held.set()
        for thread in threads:
            thread.join()
        assert [answers.get_nowait().status_code for _ in range(3)] == [200] * 3


def test_an_explanation_that_nobody_waits_for_has_no_place(serving, run, picture, held):
    with serving(run, timeout_s=0.3) as live:
        for _ in range(5):  # more than there are places
            assert explain(live, picture).status_code == 503
        held.set()
        until = time.monotonic() + PATIENCE_S
        while (
            'vitreous_explanations_total{result="late"} 5.0' not in live.http.get("/metrics").text
        ):
            assert time.monotonic() < until


def test_a_fault_of_our_own_is_500_and_the_worker_goes_on(serving, run, picture, monkeypatch):
    real, faults = Served.answers, [ValueError("secret"), MemoryError()]

    def faulty(self, *rest):
        if faults:
            raise faults.pop()
        return real(self, *rest)

    with serving(run, workers=1) as live:
        monkeypatch.setattr(Served, "answers", faulty)
        for _ in range(2):
            answer = live.predict(picture)
            assert answer.status_code == 500
            assert "secret" not in answer.text
        assert live.predict(picture).status_code == 200


@pytest.mark.parametrize("batch", [1, 8])
def test_workers_compute_alone_and_other_threads_keep_theirs(
    serving, run, picture, monkeypatch, batch
):
    found: dict[str, int] = {}

    def note(what: str) -> None:
        found[what] = torch.get_num_threads()

    real = Served.fitted

    def fitted(self, *rest):
        note("worker")
        return real(self, *rest)

    monkeypatch.setattr(Served, "fitted", fitted)
    with torch_threads(3), serving(run, workers=2, batch=batch) as live:
        assert live.predict(picture).status_code == 200
        other = threading.Thread(target=note, args=("other",))
        other.start()
        other.join()
        note("here")
    assert found == {"worker": 1, "other": 3, "here": 3}


@pytest.mark.parametrize("batch", [1, 8])
def test_pictures_and_models_are_let_go_of(serving, run, picture, monkeypatch, batch):
    """Whoever waits for more work keeps nothing of the last."""
    kept: list[weakref.ref[Any]] = []

    def noted(real, *words):
        made = real(*words)
        kept.append(weakref.ref(made.model if isinstance(made, Classifier) else made))
        return made

    for name, real in (
        ("bodies.Picture", bodies.Picture),
        ("explained.load_classifier", explained.load_classifier),
    ):
        monkeypatch.setattr(f"vitreous.server.{name}", partial(noted, real))
    fitted = Served.fitted
    monkeypatch.setattr(Served, "fitted", lambda *words: noted(fitted, *words))
    with serving(run, workers=1, batch=batch) as live:
        kept.append(weakref.ref(live.running.service.served))
        assert live.predict(picture).status_code == 200
        assert explain(live, picture).status_code == 200
        live.running.reload()
        while 'vitreous_reloads_total{result="done"} 1.0' not in live.http.get("/metrics").text:
            pass
        assert len(kept) == 5
        wait_for_none(kept)


def test_a_picture_that_came_too_late_is_let_go_of(serving, run, picture, monkeypatch):
    hold, real, kept = threading.Event(), Served.fitted, []

    def slow(self, *words):
        hold.wait(PATIENCE_S)
        return real(self, *words)

    def made(*words):
        found = Picture(*words)
        kept.append(weakref.ref(found))
        return found

    monkeypatch.setattr(Served, "fitted", slow)
    monkeypatch.setattr("vitreous.server.bodies.Picture", made)
    with serving(run, timeout_s=0.3, workers=1, queue=1) as live:
        for _ in range(2):  # the second is never begun
            assert live.predict(picture).status_code == 503
        hold.set()
        assert len(kept) == 2
        wait_for_none(kept)


def wait_for_none(kept: "list[weakref.ref[Any]]") -> None:
    """Until nothing has any of these, though not for ever."""
    until = time.monotonic() + PATIENCE_S / 3
    while time.monotonic() < until and any(one() is not None for one in kept):
        gc.collect()
        time.sleep(0.01)
    assert [type(one()) for one in kept if one() is not None] == []


def test_compiled_graphs_are_opened_once_for_each_worker(run, tmp_path, monkeypatch, faces):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quiet = Console(quiet=True)
    paths = sorted(faces.glob("*/00000.png"))
    wanted = vitreous.predict(run, *paths, console=quiet)
    served = open_served(replace(Wanted(run, NOTHING, "onnxruntime"), workers=3), quiet)
    assert len({id(one.network) for one in served.predictors}) == 3
    served.warm_up()
    for worker in range(3):
        fitted = [served.fitted(path.read_bytes(), 10**6) for path in paths]
        found = served.answers(worker, [str(path) for path in paths], fitted, None)
        for one, other in zip(found, wanted, strict=True):
            assert one.probabilities == pytest.approx(other["probabilities"], abs=1e-4)
