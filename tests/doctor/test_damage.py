import io

import numpy as np
import pytest
from PIL import Image

from vitreous.data.decode import read_picture
from vitreous.doctor.damage import diagnose
from vitreous.errors import UnreadablePicture

NOISE = np.random.default_rng(0)


def encoded(kind: str, **options: object) -> bytes:
    pixels = NOISE.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def diagnosed(path, content: bytes) -> tuple[str, str]:
    path.write_bytes(content)
    with pytest.raises(UnreadablePicture) as refused:
        read_picture(path)
    return diagnose(path, str(refused.value))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_picture_cut_off_is_truncated(tmp_path, kind, share):
    content = encoded(kind, **({"compression": "raw"} if kind == "TIFF" else {}))
    found, detail = diagnosed(tmp_path / "a.jpg", content[: int(share * len(content))])
    assert found == "truncated", detail
    assert detail.startswith(kind)


def test_a_jpeg_cut_off_within_its_exif_is_truncated(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 5000
    content = encoded("JPEG", exif=exif, progressive=True)
    assert diagnosed(tmp_path / "a.jpg", content[:3000])[0] == "truncated"


@pytest.mark.parametrize("kept", [3, 4, 8])
def test_a_beginning_of_a_picture_before_noise_is_no_picture_cut_off(tmp_path, kept):
    for seed in range(40):
        noise = np.random.default_rng(seed).bytes(3000).replace(b"\xff\xd9", b"\xff\xd8")
        found, _ = diagnosed(tmp_path / "a.jpg", encoded("JPEG")[:kept] + noise)
        assert found == "unreadable", seed


def test_a_scan_without_a_frame_is_no_jpeg(tmp_path):
    scan = b"\xff\xd8\xff\xda\x00\x0c" + bytes(range(200))
    assert diagnosed(tmp_path / "a.jpg", scan)[0] == "unreadable"


def test_a_whole_picture_with_wrong_bytes_is_unreadable(tmp_path):
    png = bytearray(encoded("PNG"))
    png[60:300] = bytes(240)
    found, detail = diagnosed(tmp_path / "a.png", bytes(png))
    assert (found, detail[:12]) == ("unreadable", "PNG, damaged")


@pytest.mark.parametrize(
    ("content", "found", "words"),
    [
        (b"", "empty", "0 bytes"),
        (b"hello\n", "not_a_picture", "a text"),
        (b"BMW 320, sold\n", "not_a_picture", "a text"),
        ("größer als gedacht".encode(), "not_a_picture", "a text"),
        ("größer als gedacht".encode("latin-1"), "not_a_picture", "a text"),
        (("ä" * 2000).encode(), "not_a_picture", "a text"),
        (b"\xef\xbb\xbf  <HTML><body>404", "not_a_picture", "an HTML page"),
        (b'<?xml version="1.0"?><svg/>', "not_a_picture", "an SVG drawing"),
        (b"%PDF-1.4\n\x00\x01", "not_a_picture", "a PDF"),
        (b"PK\x03\x04\x14\x00", "not_a_picture", "a ZIP archive"),
        (b"\x00\x00\x00\x20ftypisom\x00", "not_a_picture", "a film"),
        (b"\x00\x00\x00\x20ftypheic\x00", "unreadable", "a HEIC picture, which isn't read"),
        (b"\x00\x00\x00\x1cftypavif\x00", "unreadable", "an AVIF picture, which isn't read"),
        (b"\x00\x01\x02\x03 nothing known", "unreadable", "not a picture in a known format"),
    ],
)
def test_what_a_file_is_instead(tmp_path, content, found, words):
    kind, detail = diagnosed(tmp_path / "a.jpg", content)
    assert kind == found
    assert words in detail


def test_what_is_no_file_or_not_there(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    assert diagnose(tmp_path / "folder.jpg", "not a file") == ("unreadable", "not a file")
    assert diagnose(tmp_path / "gone.jpg", "no such file") == ("unreadable", "no such file")


def test_a_float_tiff_is_whole_but_unreadable(tmp_path):
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / "a.tif")
    kind, detail = diagnosed(tmp_path / "a.tif", (tmp_path / "a.tif").read_bytes())
    assert kind == "unreadable"
    assert detail.startswith("TIFF, 32-bit float pixels")
