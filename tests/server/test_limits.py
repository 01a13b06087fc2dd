"""What is turned away, with which status, and that nothing of a picture reaches the disk."""

import base64
import io
import json
import os
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.server.conftest import PATIENCE_S, talk

KEY = "a key of sixteen or more"


def status(answer) -> int:
    """Every answer to a mistake says in words what it was."""
    assert isinstance(answer.json()["detail"], str)
    return answer.status_code


def test_too_many_bytes_are_refused_whatever_the_header_says(live):
    assert status(live.predict(b"x" * 200_001)) == 413

    # Without a length, in chunks: counted as they come.
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    chunks = b"c350\r\n" + b"x" * 50_000 + b"\r\n"
    found = talk(live.port, head + b"Transfer-Encoding: chunked\r\n\r\n" + 5 * chunks)
    assert found.split()[1] == b"413"

    def endless():
        while True:
            yield b"x" * 50_000

    try:
        answer = live.http.post(
            "/v1/predict", content=endless(), headers={"content-type": "image/png"}
        )
    except httpx.TransportError:  # the server may leave while its client is still sending
        pass
    else:
        assert answer.status_code == 413
    assert live.http.get("/healthz").status_code == 200


def test_a_length_that_lies_is_no_way_in(live):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    for length in (b"9" * 40, b"-5", b"1e3"):
        found = talk(live.port, head + b"Content-Length: " + length + b"\r\n\r\nabc")
        assert found == b"" or found.split()[1] in (b"400", b"413")


def test_pixels_are_counted_before_they_are_decoded(live):
    # A few kilobytes that would be 1.2 gigabytes of pixels.
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "png")
    answer = live.predict(bomb.getvalue())
    assert status(answer) == 422
    assert "megapixels" in answer.json()["detail"]
    small = io.BytesIO()
    Image.new("RGB", (250, 500)).save(small, "png")  # 125,000, where 100,000 are allowed
    answer = live.predict(small.getvalue())
    assert status(answer) == 422
    assert "the limit of 0.1 megapixels" in answer.json()["detail"]


def test_a_jpeg_of_endless_passes_is_refused(live):
    """Each pass goes over all pixels: 15 bytes more are milliseconds more."""
    plain = io.BytesIO()
    Image.new("RGB", (300, 300)).save(plain, "jpeg", progressive=True)
    data = plain.getvalue()
    last = data.rindex(b"\xff\xda")
    scan = data[last : data.rindex(b"\xff\xd9")]
    bomb = data[:-2] + scan * 5000 + data[-2:]
    answer = live.predict(bomb, kind="image/jpeg")
    assert status(answer) == 422
    assert "passes" in answer.json()["detail"]
    assert live.predict(data, kind="image/jpeg").status_code == 200
    # A telephone's motion photo has a film behind it, in which the marker stands by chance.
    film = b"\xff\xda\x93" * 200
    assert live.predict(data + film, kind="image/jpeg").status_code == 200
    # What isn't counted is no pass to the decoder: its header's length is wrong.
    header = data.index(b"\xff\xda")
    odd = data[: header + 3] + bytes([data[header + 3] + 1]) + data[header + 4 :]
    with pytest.raises(OSError):  # noqa: PT011  # whatever the decoder says
        Image.open(io.BytesIO(odd)).load()


def test_too_many_pictures_are_refused(live, picture):
    assert status(live.http.post("/v1/predict", files=[("a", picture)] * 5)) == 413
    notes = {f"note{number}": "no file" for number in range(20)}
    form = live.http.post("/v1/predict", files=[("a", picture)] * 4, data=notes)
    assert form.status_code == 200
    notes = {f"note{number}": "no file" for number in range(100)}
    assert status(live.http.post("/v1/predict", files=[("a", picture)], data=notes)) == 413
    one = {"data": base64.b64encode(picture).decode()}
    assert status(live.http.post("/v1/predict", json={"pictures": [one] * 5})) == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-python-pickle", "", "video/mp4"])
def test_other_kinds_are_415(live, picture, kind):
    assert status(live.predict(picture, kind=kind)) == 415


def test_compressed_bodies_are_415(live, picture):
    headers = {"content-type": "image/png", "content-encoding": "gzip"}
    assert status(live.http.post("/v1/predict", content=picture, headers=headers)) == 415


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"pictures": {}}', b'{"pictures": []}', b'{"pictures": [7]}',
     b'{"pictures": [{"data": 7}]}', b'{"pictures": [{"data": "!!"}]}',
     b'{"pictures": [{"name": 1, "data": ""}]}', b"[" * 100_000,
     b'{"pictures": [{"data": "\xff"}]}', b'{"pictures": ' + b"9" * 5000 + b"}"],
    ids=lambda body: body[:30].decode("latin-1"),
)  # fmt: skip
def test_json_that_makes_no_sense_is_422(live, body):
    assert status(live.predict(body, kind="application/json")) == 422


def test_json_of_many_small_things_is_refused_before_it_is_read(live, picture):
    """Read, each empty list would be some 30 times as large."""
    one = {"name": ",[{" * 30, "data": base64.b64encode(picture).decode()}
    assert live.http.post("/v1/predict", json={"pictures": [one] * 4}).status_code == 200
    for rest in ([[]] * 2000, [{}] * 2000, [0] * 2000):
        answer = live.http.post("/v1/predict", json={"pictures": [one], "rest": rest})
        assert status(answer) == 422
        assert "more than 1400" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [("multipart/form-data", b"x"), ("multipart/form-data; boundary=b", b""),
     ("multipart/form-data; boundary=b", b"--b\r\n\r\nno end"),
     ("multipart/form-data; boundary=b", b"--b--\r\n"),
     ("multipart/form-data; boundary=" + "b" * 300, b"--b--"),
     ("multipart/form-data; boundary=b",
      b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\nno file\r\n--b--\r\n')],
)  # fmt: skip
def test_forms_without_a_picture_are_422(live, kind, body):
    assert status(live.predict(body, kind=kind)) == 422


@pytest.mark.parametrize(
    "query", ["?sets=0", "?sets=1", "?sets=nan", "?sets=x", "?by_class=true", "?refuse=maybe"]
)
def test_questions_that_make_no_sense_are_422(live, picture, query):
    assert status(live.predict(picture, query)) == 422


def test_names_are_handed_back_and_never_opened(live, picture, run):
    names = [str(run / "best.safetensors"), "../../etc/passwd", "file:///etc/passwd", "a\x00b"]
    data = base64.b64encode(picture).decode()
    listed = [{"name": name, "data": data} for name in names]
    answers = live.http.post("/v1/predict", json={"pictures": listed}).json()["predictions"]
    assert [answer["file"] for answer in answers] == names
    assert len({answer["label"] for answer in answers}) == 1
    half = b'{"pictures": [{"name": "\\ud800", "data": "%s"}]}' % data.encode()
    assert live.predict(half, kind="application/json").status_code == 200


def test_a_full_line_turns_away_and_answers_what_it_took(serving, run, picture):
    big = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (1500, 1500, 3), np.uint8)).save(big, "png")
    counts: dict[int, int] = {}
    after: set[str] = set()
    with serving(run, workers=1, queue=1) as live:

        def ask() -> None:
            with httpx.Client(base_url=live.http.base_url, timeout=PATIENCE_S) as http:
                for _ in range(4):
                    answer = http.post(
                        "/v1/predict",
                        content=big.getvalue(),
                        headers={"content-type": "image/png"},
                    )
                    counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
                    if answer.status_code == 429:
                        after.add(answer.headers["retry-after"])

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(counts) == {200, 429}
        assert sum(counts.values()) == 32
        assert after == {"1"}
        # Afterwards all places are free again, for several at a time too.
        assert live.http.post("/v1/predict", files=[("a", picture)] * 3).status_code == 200


def test_a_key_is_asked_for_where_answers_are(serving, run, picture):
    with serving(run, api_key=KEY) as live:
        asked = {"content": picture, "headers": {"content-type": "image/png"}}
        wrong = ("Bearer wrong", KEY, f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", "Bearer \xe9")
        for words in ({}, *({"authorization": one} for one in wrong)):
            headers = {**asked["headers"], **words}
            headers = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = live.http.post("/v1/predict", content=picture, headers=headers)
            assert status(answer) == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/model", "/metrics"):
            assert status(live.http.get(path)) == 401
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert live.http.get(path).status_code == 200
        live.http.headers["authorization"] = f"Bearer {KEY}"
        assert live.http.post("/v1/predict", **asked).status_code == 200
        assert live.http.get("/metrics").status_code == 200


def test_other_pages_and_other_names_may_not_ask(live, picture):
    headers = {"content-type": "image/png"}

    def ask(**words):
        return live.http.post("/v1/predict", content=picture, headers={**headers, **words})

    assert status(ask(origin="https://evil.example")) == 403
    for broken in ("null", "http://[", "http://[::1", "//]", "http://[v1.x]:y"):
        assert status(ask(origin=broken)) == 403
    assert status(ask(host="evil.example")) == 403
    here = f"127.0.0.1:{live.port}"
    answer = ask(origin=f"http://{here}")
    assert answer.status_code == 200
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert ask(host=f"localhost:{live.port}").status_code == 200


def test_pages_that_were_named_may_ask(serving, run, picture):
    friend = "https://example.org"
    with serving(run, allow_origins=(friend,), allow_frames=(friend,), api_key=KEY) as live:
        asking = {
            "origin": friend,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type",
        }
        allowed = live.http.options("/v1/predict", headers=asking)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == friend
        headers = {
            "content-type": "image/png", "origin": friend, "authorization": f"Bearer {KEY}"
        }  # fmt: skip
        answer = live.http.post("/v1/predict", content=picture, headers=headers)
        assert answer.headers["access-control-allow-origin"] == friend
        wrong = live.http.post(
            "/v1/predict", content=picture, headers={**headers, "authorization": ""}
        )
        assert wrong.status_code == 401
        assert wrong.headers["access-control-allow-origin"] == friend
        headers["origin"] = "https://evil.example"
        assert live.http.post("/v1/predict", content=picture, headers=headers).status_code == 403
        page = live.http.get("/docs")
        assert "x-frame-options" not in page.headers
        assert f"frame-ancestors {friend}" in live.http.get("/healthz").headers[
            "content-security-policy"
        ]  # fmt: skip


def test_every_answer_tells_browsers_to_run_nothing_foreign(live, picture):
    answers = [live.http.get(path) for path in ("/", "/docs", "/healthz", "/v1/model", "/nothing")]
    answers += [live.predict(picture), live.predict(b""), live.http.delete("/v1/predict")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy
        assert "script-src 'unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


def test_nothing_of_a_picture_reaches_the_disk_or_the_log(
    serving, run, tmp_path, monkeypatch, capfd, caplog
):
    """Starlette's own forms would be spooled to a file from a megabyte on."""
    rng = np.random.default_rng(0)
    data = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (900, 900, 3), np.uint8)).save(data, "png")
    assert len(data.getvalue()) > 2_000_000
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    opened: list[object] = []
    real = os.open

    def watched(path, *rest, **options):
        opened.append(path)
        return real(path, *rest, **options)

    before = sorted(path for path in run.rglob("*"))
    with serving(run) as live:
        live.predict(data.getvalue())
        monkeypatch.setattr("os.open", watched)
        name = "secret-name.png"
        answer = live.http.post("/v1/predict", files=[("a", (name, data.getvalue()))])
        assert answer.json()["predictions"][0]["file"] == name
        live.http.post("/v1/predict", files=[("a", (name, b"broken"))])
    assert not list(temporary.iterdir())
    assert opened == []
    assert sorted(path for path in run.rglob("*")) == before
    said = capfd.readouterr()
    assert "secret" not in said.out + said.err + caplog.text


def test_a_key_file_is_read_and_weak_ones_are_refused(tmp_path, monkeypatch):
    from vitreous.errors import ConfigError
    from vitreous.server.settings import Settings, read_key

    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_key(file) == KEY
    monkeypatch.setenv("VITREOUS_API_KEY", f"{KEY[::-1]} ")
    assert read_key(None) == KEY[::-1]
    with pytest.raises(ConfigError, match="nothing above"):
        Settings(max_pixels=400_000_000)
    monkeypatch.setenv("VITREOUS_API_KEY", " ")  # a secret that was forgotten opens nothing
    with pytest.raises(ConfigError, match="VITREOUS_API_KEY is set and empty"):
        read_key(None)
    monkeypatch.delenv("VITREOUS_API_KEY")
    assert read_key(None) is None
    with pytest.raises(ConfigError, match="16 characters"):
        Settings(api_key="short")
    with pytest.raises(ConfigError, match="no-such"):
        read_key(Path("no-such"))
    file.write_text("")
    with pytest.raises(ConfigError, match="empty"):
        read_key(file)


@pytest.mark.parametrize(
    "wrong",
    [{"port": 70_000}, {"workers": 0}, {"timeout_s": 0}, {"allow_origins": ("*",)},
     {"allow_origins": ("https://a.example/path",)}, {"allow_frames": ("https://a;b",)},
     {"allow_origins": ("http://[",)}, {"allow_frames": ("https://[::1",)}],
    ids=json.dumps,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong):
    from vitreous.errors import ConfigError
    from vitreous.server.settings import Settings

    with pytest.raises(ConfigError):
        Settings(**wrong)
