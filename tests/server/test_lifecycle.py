"""From the first request to the last: starting, reloading and ending, by real signals."""

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

import vitreous
from tests.server.conftest import PATIENCE_S
from vitreous.core.console import Console
from vitreous.errors import ConfigError, RunError
from vitreous.server import lifecycle
from vitreous.server.lifecycle import serve
from vitreous.server.model import Wanted
from vitreous.server.settings import Settings
from vitreous.serving.weights import NOTHING
from vitreous.training.classifier import load_classifier, save_classifier

HEADERS = {"Content-Type": "image/png"}


@contextmanager
def command(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``vitreous serve`` as a process of its own, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vitreous", "serve", str(run), "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    try:
        assert process.stderr
        for line in process.stderr:
            if "http://127.0.0.1:" in line and "Ctrl-C" in line:
                yield process, int(line.split("http://127.0.0.1:")[1].split("/")[0].split()[0])
                break
        else:
            pytest.fail(f"it ended at once, with status {process.wait()}")
    finally:
        process.kill()
        process.wait()


def test_no_request_is_lost_when_it_is_told_to_end(run, picture):
    """Every connection gets its answer and is told that it was the last one."""
    answered, lost, stop = [], [], threading.Event()

    def ask(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        while not stop.is_set():
            try:
                connection.request("POST", "/v1/predict", picture, HEADERS)
                answer = connection.getresponse()
                body = answer.read()
            except OSError as error:
                lost.append(error)
                return
            if answer.status != 429:
                answered.append((answer.status, body))
            if answer.getheader("connection") == "close":
                return

    with command(run, "--workers", "2", "--queue", "4") as (process, port):
        threads = [threading.Thread(target=ask, args=(port,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while len(answered) < 20:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(PATIENCE_S)
        stop.set()
        assert process.wait(PATIENCE_S) == 0
        assert lost == []
        assert {status for status, _ in answered} == {200}
        assert process.stderr
        assert "ending" in process.stderr.read()


def connect_for_ever(address: tuple[str, int]) -> None:
    while True:
        with contextlib.suppress(ConnectionResetError):  # the port was closed amid a handshake
            socket.create_connection(address, PATIENCE_S).close()


def test_what_is_on_its_way_when_the_port_is_closed_is_answered(serving, run, monkeypatch):
    monkeypatch.setattr("vitreous.server.lifecycle._LAST_CALL_S", 0.1)
    monkeypatch.setattr("vitreous.server.lifecycle._LATE_S", PATIENCE_S)
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(run) as live:
        address = ("127.0.0.1", live.port)
        # One has begun to ask, one is about to.
        late = [socket.create_connection(address, PATIENCE_S) for _ in range(2)]
        late[0].sendall(whole[:10])
        assert live.http.get("/healthz").status_code == 200  # both are connections by now
        live.running.end()
        with pytest.raises(ConnectionRefusedError):  # the port is closed
            connect_for_ever(address)
        time.sleep(0.3)
        for connection, rest in zip(late, (whole[10:], whole), strict=True):
            connection.sendall(rest)
            found = b""
            while chunk := connection.recv(65536):
                found += chunk
            connection.close()
            assert found.startswith(b"HTTP/1.1 200 ")
            assert b"onnection: close" in found


def test_it_is_not_ready_any_more_while_it_ends(serving, run):
    with serving(run) as live:
        live.running.end()
        statuses = set()
        while 503 not in statuses:
            answer = live.http.get("/readyz")
            statuses.add(answer.status_code)
        assert answer.headers["connection"] == "close"
        assert answer.headers["retry-after"] == "1"
        assert live.http.get("/healthz").status_code == 200


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP on Windows")
def test_it_can_be_reloaded_and_ended_where_nobody_reads_what_it_says(run, picture):
    with command(run) as (process, port):
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        done, until = 'vitreous_reloads_total{result="done"} 1.0', time.monotonic() + PATIENCE_S
        while done not in httpx.get(f"http://127.0.0.1:{port}/metrics").text:
            assert time.monotonic() < until
            time.sleep(0.01)
        url = f"http://127.0.0.1:{port}/v1/predict"
        assert httpx.post(url, content=picture, headers=HEADERS).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP on Windows")
def test_a_reload_that_is_asked_for_too_early_waits(run, monkeypatch):
    opened, times = lifecycle._opened, []

    def asked_meanwhile(*words):
        times.append(time.monotonic())
        if len(times) == 1:
            os.kill(os.getpid(), signal.SIGHUP)
        return opened(*words)

    def on_ready(running: lifecycle.Running) -> None:
        def end_behind_it() -> None:
            while len(times) < 2 and time.monotonic() < times[0] + PATIENCE_S:
                time.sleep(0.01)
            running.end()

        threading.Thread(target=end_behind_it).start()

    monkeypatch.setattr(lifecycle, "_opened", asked_meanwhile)
    before = signal.getsignal(signal.SIGHUP)
    serve(Wanted(run, NOTHING), Settings(port=0), Console(quiet=True), on_ready)
    assert len(times) == 2
    assert signal.getsignal(signal.SIGHUP) == before


def test_in_a_notebook_it_says_so_before_any_work(run):
    async def cell() -> None:
        vitreous.serve(run)

    with pytest.raises(ConfigError, match="an event loop runs here already"):
        asyncio.run(cell())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP on Windows")
def test_a_reload_answers_with_new_weights_and_loses_nothing(run, tmp_path, picture):
    mine = tmp_path / "mine"
    shutil.copytree(run, mine)
    statuses, stop = [], threading.Event()
    with command(mine) as (process, port):
        url = f"http://127.0.0.1:{port}"

        def ask() -> httpx.Response:
            return httpx.post(
                f"{url}/v1/predict", content=picture, headers=HEADERS, timeout=PATIENCE_S
            )

        def go_on() -> None:
            while not stop.is_set():
                statuses.append(ask().status_code)

        thread = threading.Thread(target=go_on)
        thread.start()
        before = ask().json()["probabilities"]
        classifier = load_classifier(mine / "best.safetensors")
        with torch.no_grad():
            classifier.model.head.weight.neg_()
            classifier.model.head.bias.neg_()
        (mine / "calibration.safetensors").unlink()
        save_classifier(mine / "best.safetensors", classifier)
        # The old model doesn't explain with the new one's weights.
        explained = httpx.post(
            f"{url}/v1/explain", content=picture, headers=HEADERS, timeout=PATIENCE_S
        )
        assert explained.status_code == 503
        process.send_signal(signal.SIGHUP)
        while (after := ask().json()["probabilities"]) == before:
            time.sleep(0.01)
        assert max(before, key=before.get) == min(after, key=after.get)
        # One that can't be opened changes nothing.
        (mine / "best.safetensors").write_bytes(b"half a file")
        process.send_signal(signal.SIGHUP)
        while 'vitreous_reloads_total{result="failed"} 1.0' not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.01)
        assert ask().json()["probabilities"] == after
        stop.set()
        thread.join(PATIENCE_S)
    assert set(statuses) == {200}


def test_a_taken_port_and_a_missing_run_are_told_at_once(run, tmp_path):
    quiet = Console(quiet=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            serve(Wanted(run, NOTHING), Settings(port=port), quiet)
    with pytest.raises(ConfigError, match="no-such-host"):
        serve(Wanted(run, NOTHING), Settings(host="no-such-host.invalid", port=0), quiet)
    with pytest.raises(RunError, match="does not exist"):
        serve(Wanted(tmp_path / "none", NOTHING), Settings(port=0), quiet)


def test_who_listens_to_all_without_a_key_is_warned(run, capfd):
    ended = threading.Event()

    def end(running):
        running.end()
        running.end()  # at once
        ended.set()

    def work():
        serve(Wanted(run, NOTHING), Settings(host="0.0.0.0", port=0), Console(), end)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE_S)
    assert ended.is_set()
    said = capfd.readouterr().err
    assert "warning: whoever reaches" in said
    assert "page: http" in said
    assert "/docs" in said


def test_a_second_call_to_end_takes_connections_along(serving, run):
    with (
        serving(run) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as connection,
    ):
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        )
        time.sleep(0.2)
        live.running.end()
        live.running.end()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
