"""Clients of a server: as many as there are connections, or as many requests as a rate says.

They are threads that send bytes made beforehand and read no more of an answer than its status and
length, so that little of the machine goes into them.
"""

import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
_PATIENCE_S = 120.0


@dataclass
class Seen:
    """What clients saw.

    Args:
        seconds: from first byte sent to last byte received, of each answer with status 200.
        statuses: how many of each; "lost" without any.
        took_s: all of it.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.took_s

    def quantile_ms(self, share: float) -> float:
        """Of the seconds."""
        ordered = sorted(self.seconds)
        return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def to_json(self) -> dict[str, Any]:
        """In numbers."""
        return {
            "rate": round(self.rate, 2),
            "p50_ms": round(self.quantile_ms(0.5), 2) if self.seconds else None,
            "p99_ms": round(self.quantile_ms(0.99), 2) if self.seconds else None,
            "statuses": dict(self.statuses),
        }


class Client:
    """One connection, kept as long as the server wants."""

    def __init__(self, port: int) -> None:
        self._port, self._socket = port, None

    def ask(self, request: bytes) -> tuple[str, bool]:
        """Send a request; its status, "lost" for none, and whether the connection goes on."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection((HOST, self._port), _PATIENCE_S)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(request)
            found = b""
            while b"\r\n\r\n" not in found:
                found += self._more()
            head, _, body = found.partition(b"\r\n\r\n")
            lower = head.lower()
            left = int(lower.split(b"content-length:")[1].split(b"\r\n")[0]) - len(body)
            while left > 0:
                left -= len(self._more())
        except OSError:
            self._socket = None
            return "lost", False
        if b"connection: close" in lower:
            self._socket.close()
            self._socket = None
            return head[9:12].decode(), False
        return head[9:12].decode(), True

    def _more(self) -> bytes:
        assert self._socket
        more = self._socket.recv(1 << 16)
        if not more:
            raise ConnectionError
        return more


def picture_request(data: bytes, path: str = "/v1/predict") -> bytes:
    """A picture as the body of a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def form_request(data: bytes, path: str = "/v1/predict") -> bytes:
    """The same as the only file of a form."""
    body = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n'
    body += b"Content-Type: image/jpeg\r\n\r\n" + data + b"\r\n--b--\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + body


def keep_busy(
    port: int,
    requests: Sequence[bytes],
    connections: int,
    seconds: float | None = None,
    count: int | None = None,
) -> Seen:
    """Ask again as soon as there is an answer, on some connections, for a time or so often."""
    seen, lock, asked = Seen(), threading.Lock(), iter(range(count or 10**12))
    until = time.perf_counter() + seconds if seconds else float("inf")

    def work(number: int) -> None:
        client, times, statuses = Client(port), [], Counter()
        at = number * len(requests) // connections
        while time.perf_counter() < until:
            with lock:
                if next(asked, None) is None:
                    break
            at += 1
            began = time.perf_counter()
            status, goes_on = client.ask(requests[at % len(requests)])
            statuses[status] += 1
            if status == "200":
                times.append(time.perf_counter() - began)
            elif status == "429":
                time.sleep(0.005)
            if count is None and seconds is None and not goes_on:
                break  # until the server ends
        with lock:
            seen.seconds += times
            seen.statuses += statuses

    began = time.perf_counter()
    _all([threading.Thread(target=work, args=(number,)) for number in range(connections)])
    seen.took_s = time.perf_counter() - began
    return seen


def arrive(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Seen:
    """Requests that come by chance at a mean rate (a Poisson process), whatever the server does."""
    chance, seen, lock = random.Random(0), Seen(), threading.Lock()
    moments, moment = [], 0.0
    while (moment := moment + chance.expovariate(rate)) < seconds:
        moments.append(moment)
    due = iter(enumerate(moments))
    began = time.perf_counter()

    def work() -> None:
        client = Client(port)
        while True:
            with lock:
                number, moment = next(due, (0, None))
            if moment is None:
                return
            time.sleep(max(0.0, began + moment - time.perf_counter()))
            sent = time.perf_counter()
            status, _ = client.ask(requests[number % len(requests)])
            with lock:
                seen.statuses[status] += 1
                if status == "200":
                    seen.seconds.append(time.perf_counter() - sent)

    _all([threading.Thread(target=work) for _ in range(24)])
    seen.took_s = time.perf_counter() - began
    return seen


def median(values: Sequence[float]) -> float:
    """Rounded to what can be told."""
    return round(statistics.median(values), 3)


def _all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
