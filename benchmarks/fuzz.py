"""Requests that nobody should send: no 5xx but 503, no hang, no crash.

    python benchmarks/fuzz.py RUN --requests 100000 --out benchmarks/results/DATE_fuzz

A real server gets requests made by schemathesis from its own description, pictures of every format
with bytes changed, cut, put in or twice there, bombs, and bytes that are hardly HTTP, while slow
clients sit on connections all the time. What it shouldn't have answered is kept in a file.
"""

import argparse
import base64
import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from result_files import machine
from serving import _cpu_s, _free_port, _resident_mb, _wait_for
from serving_load import HOST

from vitreous.core.files import write_json, write_text

MAX_BYTES, TIMEOUT_S = 2_000_000, 5.0
#: A request and its answer are over by then (see `server.patience`), or else it is a hang.
HANG_S = 4 * TIMEOUT_S + 10
HARDLY_HTTP = "hardly HTTP"
_THREADS = 4
_SLOW = 20


class Findings:
    """What came back, and what shouldn't have."""

    def __init__(self) -> None:
        self.statuses: dict[str, Counter[str]] = {}
        self.wrong: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def note(self, kind: str, status: str, sent: bytes) -> None:
        with self._lock:
            self.statuses.setdefault(kind, Counter())[status] += 1
            is_answer = status.isdigit()
            is_wrong = status == "hang" or (status.startswith("5") and status != "503")
            # What is hardly HTTP may be left without an answer, and nothing else.
            if is_wrong or not (is_answer or kind == HARDLY_HTTP):
                head = base64.b64encode(sent[:100_000]).decode()
                self.wrong.append({"kind": kind, "status": status, "sent": head})


def main() -> int:
    words = _words()
    port, findings = _free_port(), Findings()
    command = [sys.executable, "-m", "vitreous", "serve", words.run, "--port", str(port),
               "--max-bytes", str(MAX_BYTES), "--max-pixels", "4000000", "--max-pictures", "8",
               "--timeout", str(TIMEOUT_S), "--queue", "16", "--quiet"]  # fmt: skip
    began = time.monotonic()
    server = subprocess.Popen(command)
    try:
        _wait_for(port, server)
        stop = threading.Event()
        slow = [threading.Thread(target=sit, args=(port, stop, at)) for at in range(_SLOW)]
        for thread in slow:
            thread.start()
        before = _resident_mb(server.pid)
        share = words.requests // 10
        by_schema(port, findings, share)
        share = words.requests - sum(findings.statuses["schema"].values())
        hammer(port, findings, share, words.seed)
        stop.set()
        for thread in slow:
            thread.join()
        crashed = server.poll()
        results = {
            "requests": sum(sum(one.values()) for one in findings.statuses.values()),
            "statuses": {kind: dict(one) for kind, one in findings.statuses.items()},
            "wrong": len(findings.wrong),
            "exit_status": crashed,
            "resident_mb": [before, _resident_mb(server.pid) if crashed is None else None],
            "cpu_s": _cpu_s(server.pid) if crashed is None else None,
            "took_s": round(time.monotonic() - began),
            "machine": machine("fastapi", "uvicorn", "pillow", "schemathesis"),
            "command": " ".join(sys.argv),
        }
    finally:
        server.kill()
        server.wait()
    print(json.dumps(results, indent=1))
    if words.out:
        out = Path(words.out)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "results.json", results)
        write_text(out / "README.md", page(results))
        if findings.wrong:
            write_json(out / "wrong.json", findings.wrong)
    return 1 if findings.wrong or crashed is not None else 0


def by_schema(port: int, findings: Findings, count: int) -> None:
    """What schemathesis makes of ``/openapi.json``, valid and not."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    pictures = list(valid_pictures().values())
    one = st.sampled_from(pictures) | st.binary(max_size=1000)
    for kind in ("image/*", "image/png", "application/octet-stream"):
        schemathesis.openapi.media_type(kind, one)
    schema = schemathesis.openapi.from_url(f"http://{HOST}:{port}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    modes = list(schemathesis.GenerationMode)
    for operation in operations:
        for mode in modes:
            strategy = operation.as_strategy(generation_mode=mode)
            each = settings(
                max_examples=max(1, count // (len(operations) * len(modes))),
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )

            def ask(case: Any) -> None:
                try:
                    answer = case.call(timeout=HANG_S)
                    status = str(answer.status_code)
                except Exception as error:
                    status = "hang" if "imeout" in type(error).__name__ else type(error).__name__
                findings.note("schema", status, repr(case).encode())

            try:
                each(given(case=strategy)(ask))()
            except Exception as error:  # there is no wrong request to some routes
                print(f"{operation.label}, {mode.value}: {type(error).__name__}", flush=True)


def hammer(port: int, findings: Findings, count: int, seed: int) -> None:
    """Everything else, from some threads."""
    valid, kinds = valid_pictures(), list(KINDS)

    def work(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        for _ in range(count // _THREADS):
            kind = chance.choices(kinds, [KINDS[name][1] for name in kinds])[0]
            sent = KINDS[kind][0](chance, valid)
            findings.note(kind, ask_raw(port, sent, ends=kind == HARDLY_HTTP), sent)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ask_raw(port: int, sent: bytes, ends: bool) -> str:
    """Send bytes, and nothing after them or not; read until an answer or the end is there."""
    try:
        with socket.create_connection((HOST, port), HANG_S) as connection:
            try:
                connection.sendall(sent)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:  # it may leave while we send
                pass
            found = b""
            while b"\r\n\r\n" not in found:
                more = connection.recv(1 << 16)
                if not more:
                    return "closed"
                found += more
            return found[9:12].decode("latin-1")
    except TimeoutError:
        return "hang"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "closed"


def sit(port: int, stop: threading.Event, number: int) -> None:
    """A slow client: a byte now and then, of headers or of a body, for ever."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
    if number % 2:
        head += b"Content-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
    while not stop.is_set():
        try:
            with socket.create_connection((HOST, port), HANG_S) as connection:
                for byte in head + b"x" * 1000:
                    connection.sendall(bytes([byte]))
                    if stop.wait(0.1):
                        return
        except OSError:
            stop.wait(0.1)


def valid_pictures() -> dict[str, bytes]:
    """Small pictures of every format and mode."""
    from PIL import Image

    made = {}
    colours = Image.effect_noise((40, 30), 60).convert("RGB")
    for name, mode, kind, options in (
        ("jpeg", "RGB", "jpeg", {}),
        ("progressive", "RGB", "jpeg", {"progressive": True}),
        ("cmyk", "CMYK", "jpeg", {}),
        ("grey", "L", "jpeg", {}),
        ("png", "RGB", "png", {}),
        ("palette", "P", "png", {}),
        ("alpha", "RGBA", "png", {}),
        ("bits16", "I;16", "png", {}),
        ("bit", "1", "png", {}),
        ("webp", "RGB", "webp", {}),
        ("lossless", "RGBA", "webp", {"lossless": True}),
        ("gif", "P", "gif", {"save_all": True, "append_images": [colours.convert("P")] * 3}),
        ("bmp", "RGB", "bmp", {}),
        ("tiff", "RGB", "tiff", {}),
        ("lzw", "RGB", "tiff", {"compression": "tiff_lzw"}),
        ("deflate", "L", "tiff", {"compression": "tiff_adobe_deflate"}),
    ):
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        image = colours.convert("L").convert(mode) if mode == "I;16" else colours.convert(mode)
        if kind in ("jpeg", "png", "webp"):
            options = {**options, "exif": exif}
        image.save(file, kind, **options)
        made[name] = file.getvalue()
    return made


def mutated(chance: random.Random, valid: dict[str, bytes]) -> bytes:
    """A picture with something done to it."""
    data = bytearray(valid[chance.choice(list(valid))])
    for _ in range(chance.choice((0, 1, 1, 2, 5, 30))):
        at, what = chance.randrange(len(data) or 1), chance.randrange(6)
        if what == 0 and data:
            data[at] = chance.randrange(256)
        elif what == 1 and data:
            data[at : at + chance.choice((1, 2, 4))] = chance.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0")
            )
        elif what == 2:
            del data[at:]
        elif what == 3:
            data[at:at] = chance.randbytes(chance.choice((1, 10, 1000)))
        elif what == 4:
            data[at:at] = data[at : at + 200]
        else:
            other = valid[chance.choice(list(valid))]
            data[at:] = other[chance.randrange(len(other)) :]
    return bytes(data)


def request(body: bytes, kind: str, query: str = "", path: str = "/v1/predict") -> bytes:
    head = f"POST {path}{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1", "replace") + body


def one_picture(chance: random.Random, valid: dict[str, bytes]) -> bytes:
    query = chance.choice(("", "", "?sets=0.9", "?refuse=true", "?sets=0.5&by_class=1&refuse=1",
                           "?sets=-1", "?sets=1e999", "?refuse=%ff", "?" + "a" * 5000))  # fmt: skip
    kind = chance.choice(
        ("image/png", "image/jpeg", "application/octet-stream", "image/" + "x" * 99)
    )
    return request(mutated(chance, valid), kind, query)


def explained(chance: random.Random, valid: dict[str, bytes]) -> bytes:
    query = chance.choice(("?method=rollout", "?method=attention", "?method=no", "?class_name=%00"))
    return request(mutated(chance, valid), "image/png", query, "/v1/explain")


def form(chance: random.Random, valid: dict[str, bytes]) -> bytes:
    """Several pictures as a form, whole or with bytes changed."""
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="p"; filename="%s"\r\n\r\n%s\r\n'
        % (chance.randbytes(5).replace(b'"', b"").replace(b"\n", b""), mutated(chance, valid))
        for _ in range(chance.randrange(10))
    )
    body = bytearray(parts + b"--b--\r\n")
    for _ in range(chance.choice((0, 0, 1, 5))):
        body[chance.randrange(len(body))] = chance.randrange(256)
    boundary = chance.choice(("b", "b", "b", "c", "", '"b"', "b" * 200))
    return request(bytes(body), f"multipart/form-data; boundary={boundary}")


def listed(chance: random.Random, valid: dict[str, bytes]) -> bytes:
    """The same as JSON."""
    pictures: list[Any] = [
        {"name": chance.choice(("a", "\ud800", "", "/etc/passwd", "x" * 10_000)),
         "data": base64.b64encode(mutated(chance, valid)).decode()}
        for _ in range(chance.randrange(10))
    ]  # fmt: skip
    if chance.random() < 0.3:
        pictures.append(chance.choice((None, 7, [], {"data": None}, {"data": "%%"}, {"name": "a"})))
    body = bytearray(json.dumps({"pictures": pictures}).encode())
    for _ in range(chance.choice((0, 0, 1, 5))):
        body[chance.randrange(len(body))] = chance.randrange(256)
    return request(bytes(body), "application/json")


def bomb(chance: random.Random, valid: dict[str, bytes]) -> bytes:
    """Small to send and large to unpack."""
    return chance.choice(_BOMBS)


def hardly_http(chance: random.Random, valid: dict[str, bytes]) -> bytes:
    whole = request(valid["png"], "image/png")
    return chance.choice(
        (
            chance.randbytes(chance.randrange(1, 2000)),
            whole[: chance.randrange(1, len(whole))],
            whole.replace(b"Content-Length: ", b"Content-Length: 9"),
            whole.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX"),
            whole.replace(b"localhost", chance.randbytes(20)),
            whole.replace(b"localhost", b"localhost\r\nOrigin: " + _origin(chance)),
            b"GET /" + chance.randbytes(20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /page/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
            whole * 3,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET http://example.org/v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
    )


def _origin(chance: random.Random) -> bytes:
    origin = bytearray(chance.choice((b"http://localhost", b"http://[::1]:8000", b"null", b"[")))
    for _ in range(chance.randrange(3)):
        origin[chance.randrange(len(origin))] = chance.choice(b"[]:/@#%\xe2x9")
    return bytes(origin)


def _bombs() -> list[bytes]:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    made = []
    for mode, size, kind in (
        ("1", (30_000, 30_000), "png"), ("L", (60_000, 100), "png"), ("1", (2000, 1900), "tiff"),
        ("P", (16_000, 16_000), "gif"), ("RGB", (1, 60_000), "png"), ("RGBA", (2000, 1990), "webp"),
    ):  # fmt: skip
        file = io.BytesIO()
        Image.new(mode, size).save(file, kind)
        if len(file.getvalue()) < MAX_BYTES:
            made.append(request(file.getvalue(), f"image/{kind}"))
    passes = io.BytesIO()
    Image.new("RGB", (1500, 1500)).save(passes, "jpeg", progressive=True)
    data = passes.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    made.append(request(data[:-2] + scan * (1_000_000 // len(scan)) + data[-2:], "image/jpeg"))
    made.append(request(b'{"pictures": ' + b"[" * 900_000, "application/json"))
    made.append(request(b'{"pictures": ' + b"9" * 900_000 + b"}", "application/json"))
    made.append(request(b"--b\r\n\r\n\r\n" * 100_000, "multipart/form-data; boundary=b"))
    made.append(request(b"-" * 1_900_000, "multipart/form-data; boundary=----------"))
    made.append(request(b"x" * (MAX_BYTES + 1), "image/png"))
    made.append(request(_many_tags(), "image/tiff"))
    return made


def _many_tags() -> bytes:
    """A TIFF whose 60,000 tags each say that all of the file is their value."""
    count, body = 60_000, 900_000
    tags = b"".join(
        at.to_bytes(2, "little") + (1).to_bytes(2, "little") + body.to_bytes(4, "little")
        + (8).to_bytes(4, "little") for at in range(count)
    )  # fmt: skip
    return b"II*\0" + (8).to_bytes(4, "little") + count.to_bytes(2, "little") + tags + bytes(body)


_BOMBS = _bombs()
KINDS: dict[str, tuple[Callable[[random.Random, dict[str, bytes]], bytes], float]] = {
    "picture": (one_picture, 10),
    "form": (form, 3),
    "list": (listed, 3),
    "hardly HTTP": (hardly_http, 3),
    "explanation": (explained, 0.3),
    "bomb": (bomb, 0.5),
}


def page(results: dict[str, Any]) -> str:
    """The results for people."""
    rows = [
        f"| {kind} | {sum(one.values()):,} | "
        + ", ".join(f"{status}: {one[status]:,}" for status in sorted(one)) + " |"
        for kind, one in results["statuses"].items()
    ]  # fmt: skip
    ended = "" if results["exit_status"] is None else f"; it ENDED with {results['exit_status']}"
    counts = f"{results['requests']:,} requests in {results['took_s']:,} s"
    told = (
        f"{results['machine']}. {counts}, beside {_SLOW} slow clients: {results['wrong']} answered "
        f"with 5xx other than 503, or not at all{ended}. Memory of the server in MB, before and "
        f"after: {results['resident_mb']}."
    )
    head = ["# Requests that nobody should send", "", f"`python {results['command']}`", "", told]
    head += ["", "| kind | requests | statuses |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows, ""])


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    sys.exit(main())
