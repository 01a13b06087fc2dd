"""Clients that dawdle, send endless heads, or are told no before they have sent all."""

import json
import socket
import time
from contextlib import suppress

import pytest

from tests.server.conftest import PATIENCE_S, talk

KEY = "a key of sixteen or more"


def drip(connection: socket.socket, piece: bytes = b"G", times: int | None = None) -> None:
    """A byte at a time: each resets a timeout between two bytes, and none one of the whole."""
    for _ in range(times or int(PATIENCE_S / 0.05)):
        connection.sendall(piece)
        time.sleep(0.05)


def flood(connection: socket.socket, header: bytes) -> None:
    """Some 18 megabytes, as fast as they are taken."""
    for _ in range(18_000):
        connection.sendall(header)


def test_a_head_is_limited_before_anybody_is_asked_for_a_key(live):
    """Neither its first line nor its headers nor its trailers may be as long as they like."""
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    # One byte more than is allowed, all of them read, so that the answer comes through.
    for begun in (get + b"A: ", b"GET /"):
        found = talk(live.port, begun + b"x" * (65_537 - len(begun)))
        assert found.startswith(b"HTTP/1.1 431 ")
        assert "65536 bytes" in json.loads(found.partition(b"\r\n\r\n")[2])["detail"]
    chunked = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    header = b"A: " + b"x" * 1000 + b"\r\n"
    for begun in (get, chunked + b"1\r\nx\r\n0\r\n"):
        with socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as connection:
            connection.sendall(begun)
            with pytest.raises(OSError):  # noqa: PT011  # reset or broken pipe
                flood(connection, header)
    assert talk(live.port, get + header * 20 + b"Connection: close\r\n\r\n").startswith(
        b"HTTP/1.1 200 "
    )


def test_many_small_chunks_are_a_body_like_any_other(live, picture):
    def pieces():
        for at in range(0, len(padded), 2):
            yield padded[at : at + 2]

    padded = picture + bytes(40_000)  # in 20,000 chunks, whose frames have more than 65,536 bytes
    answer = live.http.post("/v1/predict", content=pieces(), headers={"content-type": "image/png"})
    assert answer.status_code == 200


def test_clients_that_dawdle_lose_their_place(serving, run, picture):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with serving(run, timeout_s=1.0) as live:
        # Headers that never end, a body that never comes, and no word at all.
        assert talk(live.port, head) == b""
        assert talk(live.port, b"") == b""
        found = talk(live.port, head + b"Content-Length: 1000\r\n\r\nabc")
        assert found.split()[1] == b"408"
        with (
            socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as connection,
            pytest.raises(OSError),  # noqa: PT011  # reset or broken pipe
        ):
            drip(connection)
        assert live.predict(picture).status_code == 200


UNASKED = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


def refusal(connection: socket.socket) -> bytes:
    """One answer with its body, the connection going on."""
    found = b""
    while not found.endswith(b'KEY"}'):
        chunk = connection.recv(65536)
        assert chunk
        found += chunk
    return found.split()[1]


def test_who_is_refused_early_may_send_the_rest_and_go_on(serving, run, monkeypatch):
    """A browser reads the answer once it has sent all, however long that takes."""
    monkeypatch.setattr("vitreous.server.patience.LINGER_S", 1.0)
    monkeypatch.setattr("vitreous.server.lifecycle._KEEP_ALIVE_S", 1)
    with (
        serving(run, api_key=KEY, timeout_s=6.0) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as connection,
    ):
        connection.sendall(UNASKED % 50)
        drip(connection, b"x", 50)  # 2.5 s
        assert refusal(connection) == b"401"
        connection.sendall(UNASKED % 1 + b"x")
        assert refusal(connection) == b"401"
        # An idle connection is ended, with its last request answered early too.
        connection.sendall(UNASKED % 1)
        assert refusal(connection) == b"401"
        connection.sendall(b"x")
        assert connection.recv(65536) == b""


@pytest.mark.parametrize(
    ("settings", "piece"),
    [({"timeout_s": 0.5}, b"x"), ({"max_bytes": 1000}, b"x" * 200)],
    ids=["too long", "too much"],
)
def test_who_is_refused_early_may_not_send_for_ever(serving, run, monkeypatch, settings, piece):
    monkeypatch.setattr("vitreous.server.patience.LINGER_S", 0.3)
    with (
        serving(run, api_key=KEY, **settings) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as connection,
    ):
        connection.sendall(UNASKED % 10**9)
        with pytest.raises(OSError):  # noqa: PT011  # reset or broken pipe
            drip(connection, piece)


def test_requests_may_not_pile_up_behind_one_another(live):
    """Each is kept in memory from its head on, and nothing else ends a row of them."""
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert talk(live.port, get * 10 + last).count(b"HTTP/1.1 200 ") == 11
    with socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as connection:
        found = b""
        with suppress(OSError):  # reset before all is sent, or read
            connection.sendall(get * 20_000)
            while chunk := connection.recv(65536):
                found += chunk
    assert found.count(b"HTTP/1.1 200 ") < 100
    assert live.http.get("/healthz").status_code == 200


def test_an_answer_that_nobody_fetches_is_given_up(serving, run, monkeypatch):
    monkeypatch.setattr("vitreous.server.lifecycle._KEEP_ALIVE_S", 1)
    with (
        serving(run, timeout_s=1.0) as live,
        socket.socket() as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", live.port))
        connections, until = live.running.server_state.connections, time.monotonic() + PATIENCE_S
        waiting = 0
        while not waiting:  # until no more fits into what the system keeps
            assert time.monotonic() < until
            connection.sendall(b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.02)
            waiting = sum(one.transport.get_write_buffer_size() for one in connections)
        while connections:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.parametrize("draining", [False, True])
def test_who_closes_behind_its_request_finds_the_refusal_too(serving, run, draining):
    """As Python's `urllib` does; a socket closed too early takes the answer away."""
    close = b"" if draining else b"Connection: close\r\n"
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n"
    with serving(run, api_key=KEY) as live:
        if draining:
            live.running.service.drain()
        found = talk(live.port, head + close + b"\r\n" + bytes(20_000_000))
    assert found.split()[1] == b"401"
    assert b"onnection: close" in found
