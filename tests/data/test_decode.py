import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from vitreous.data.decode import Header, read_picture, read_size, read_with_header
from vitreous.data.preprocess import Preprocess, fit
from vitreous.errors import UnreadablePicture

#: What the module asks of the process, pytest takes back for each test.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

SLOW_OK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
#: Formats that keep every pixel, with the modes that Pillow writes in them.
LOSSLESS = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
    *(("GIF", mode) for mode in ("1", "L", "P")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
]
OPTIONS = {"WEBP": {"lossless": True, "exact": True}}
#: Sides of the picture on which the first row and the first column lie (EXIF 2.32, 4.6.4 A).
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def noise(mode: str, width: int, height: int, seed: int) -> Image.Image:
    """A random picture whose pixels use the whole range of a mode."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width)).astype(np.uint16))
    if mode == "P":
        image = Image.fromarray(rng.integers(0, 7, (height, width), dtype=np.uint8), "P")
        image.putpalette(rng.integers(0, 256, 21, dtype=np.uint8).tobytes())
        return image
    if mode == "1":
        return Image.fromarray(rng.random((height, width)) < 0.5)
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze(2) if channels == 1 else values, mode)


def by_hand(image: Image.Image) -> np.ndarray:
    """What the contract says about a picture, computed with floats."""
    values = np.asarray(image).astype(np.float64)
    match image.mode:
        case "1":
            return np.repeat(values[..., None] * 255, 3, 2)
        case "L":
            return np.repeat(values[..., None], 3, 2)
        case "I;16":
            return np.repeat(values[..., None] // 256, 3, 2)
        case "P":
            return np.array(image.getpalette(), float).reshape(-1, 3)[np.asarray(image)]
        case "CMYK":
            return (255 - values[..., :3]) * (255 - values[..., 3:]) / 255
        case "RGB":
            return values
    color, alpha = values[..., :-1], values[..., -1:] / 255
    return np.broadcast_to(color * alpha + 255 * (1 - alpha), (*values.shape[:2], 3))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **OPTIONS.get(kind, {}), **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, color: int, data: bytes, *extra: bytes) -> bytes:
    """A PNG file put together by hand, for what Pillow doesn't write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *(chunk(part[:4], part[4:]) for part in extra)]
    chunks += [chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("kind", "mode"), LOSSLESS)
@settings(SLOW_OK, max_examples=6)
@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)) | st.sampled_from([(1, 200), (200, 1)]),
    seed=st.integers(0, 999),
)
def test_every_mode_of_every_lossless_format(tmp_path, kind, mode, size, seed):
    image = noise(mode, *size, seed)
    got = read_picture(write(tmp_path / "x", encoded(image, kind)))
    assert got.shape == (size[1], size[0], 3)
    assert got.dtype == np.uint8
    tolerance = 1 if mode in ("LA", "RGBA", "CMYK") else 0
    assert np.abs(got - by_hand(image)).max() <= tolerance


@settings(SLOW_OK, max_examples=30)
@given(
    mode=st.sampled_from(["L", "RGB", "CMYK", "YCbCr"]),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    progressive=st.booleans(),
)
def test_jpeg_is_what_pillow_decodes(tmp_path, mode, size, progressive):
    data = encoded(noise(mode, *size, 1), "JPEG", progressive=progressive)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(read_picture(write(tmp_path / "x", data)), expected)


def test_a_red_cmyk_jpeg_is_red(tmp_path):
    data = encoded(Image.new("CMYK", (9, 7), (0, 255, 255, 0)), "JPEG")
    assert b"Adobe" in data
    assert np.abs(read_picture(write(tmp_path / "x", data)) - [255.0, 0, 0]).max() < 8


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_the_upper_eight_bits(tmp_path, color, channels):
    values = np.random.default_rng(0).integers(0, 65536, (5, 4, channels)).astype(">u2")
    if channels in (2, 4):
        values[..., -1] = 0xFFFF
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    got = read_picture(write(tmp_path / "x", png(4, 5, 16, color, rows)))
    upper = (values >> 8)[..., : 3 if channels > 2 else 1]
    assert np.array_equal(got, np.broadcast_to(upper, (5, 4, 3)))


def test_transparency_is_laid_over_white(tmp_path):
    row = b"\0" + bytes([10, 20, 30, 1, 2, 3])
    keyed = png(2, 1, 8, 2, row, b"tRNS" + struct.pack(">HHH", 1, 2, 3))
    palette = png(2, 1, 8, 3, b"\0\0\1", b"PLTE" + bytes([10, 20, 30, 1, 2, 3]), b"tRNS\xff\0")
    grey = png(2, 1, 8, 0, b"\0\7\5", b"tRNS" + struct.pack(">H", 5))
    deep = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 0x0701, 0x0502),
               b"tRNS" + struct.pack(">H", 0x0502))  # fmt: skip
    half = encoded(Image.new("RGBA", (1, 1), (0, 100, 200, 51)), "PNG")
    gif = Image.new("P", (2, 1), 0)
    gif.putpalette([10, 20, 30, 1, 2, 3])
    gif.putpixel((1, 0), 1)
    for data, expected in [
        (keyed, [[10, 20, 30], [255, 255, 255]]),
        (palette, [[10, 20, 30], [255, 255, 255]]),
        (grey, [[7, 7, 7], [255, 255, 255]]),
        (deep, [[7, 7, 7], [255, 255, 255]]),
        (half, [[204, 224, 244]]),
        (encoded(gif, "GIF", transparency=1), [[10, 20, 30], [255, 255, 255]]),
    ]:
        assert read_picture(write(tmp_path / "x", data)).tolist() == [expected]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_the_first_frame_counts(tmp_path, kind):
    frames = [Image.new("RGB", (16, 8), color) for color in ((250, 0, 0), (0, 0, 250))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    got = read_picture(write(tmp_path / "x", data))
    assert np.abs(got - [250.0, 0, 0]).max() < 8


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "I;16"),
     ("WEBP", "RGB"), ("TIFF", "RGB"), ("TIFF", "L"), ("TIFF", "I;16")],
)  # fmt: skip
def test_every_exif_orientation_is_turned_upright(tmp_path, kind, mode, orientation):
    image = noise(mode, 5, 3, orientation)
    stored = read_picture(write(tmp_path / "stored", encoded(image, kind)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / "turned", encoded(image, kind, exif=exif))
    first_row, first_column = SIDES[orientation]
    upright = stored if first_row in ("top", "bottom") else stored.swapaxes(0, 1)
    if "bottom" in (first_row, first_column):
        upright = upright[::-1]
    if "right" in (first_row, first_column):
        upright = upright[:, ::-1]
    got = read_picture(path)
    assert np.array_equal(got, upright)
    if mode == "RGB":
        assert np.array_equal(got, np.asarray(ImageOps.exif_transpose(Image.open(path))))


def test_an_orientation_in_xmp_counts_too(tmp_path):
    image = noise("RGB", 5, 3, 0)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    path = write(tmp_path / "x", encoded(image, "WEBP", xmp=xmp))
    assert np.array_equal(read_picture(path), np.asarray(image)[::-1, ::-1])


def test_odd_exif_does_not_cost_a_whole_picture(tmp_path):
    """A camera's name as a number: Pillow reads it, and its exif_transpose fails on it."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    good = exif.tobytes()
    make = good.index(b"\x01\x0f\x00\x02")
    as_float = b"\x01\x0f\x00\x0b" + struct.pack(">If", 1, 2.5)
    odd = good[:make] + as_float + good[make + 12 :]
    image = noise("RGB", 5, 3, 0)
    path = write(tmp_path / "x", encoded(image, "PNG", exif=odd))
    with pytest.raises(AttributeError):
        ImageOps.exif_transpose(Image.open(path))
    assert np.array_equal(read_picture(path), np.rot90(np.asarray(image), -1))
    path = write(tmp_path / "x", encoded(image, "PNG", exif=b"Exif\0\0no exif at all"))
    assert np.array_equal(read_picture(path), np.asarray(image))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_decoded_smaller(tmp_path, photo, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(photo(600, 811)).convert(mode)
    path = write(tmp_path / "x", encoded(image, "JPEG", exif=exif, quality=90))
    preprocess = Preprocess(image_size=(60, 80) if orientation == 1 else (80, 60))
    whole, small = read_picture(path), read_picture(path, cover=preprocess.image_size)
    # A quarter, because of an eighth the shorter side would be 75, less than twice 60.
    height, width = (150, 203) if orientation == 1 else (203, 150)
    assert small.shape == (height, width, 3)
    change = np.abs(fit(small, preprocess).astype(int) - fit(whole, preprocess))
    assert change.max() <= 2
    assert change.any()


@pytest.mark.parametrize("cover", [(301, 10), (10, 406), (600, 811), (2000, 2000)])
def test_only_a_jpeg_far_above_the_size_wanted_is_decoded_smaller(tmp_path, photo, cover):
    image = Image.fromarray(photo(600, 811))
    path = write(tmp_path / "x", encoded(image, "JPEG", quality=90))
    assert np.array_equal(read_picture(path, cover=cover), read_picture(path))
    path = write(tmp_path / "y", encoded(image, "PNG"))
    assert np.array_equal(read_picture(path, cover=(6, 8)), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
def test_bytes_are_read_as_their_file_is(tmp_path, photo, kind):
    path = tmp_path / "picture"
    Image.fromarray(photo(60, 81)).save(path, kind)
    data = path.read_bytes()
    np.testing.assert_array_equal(read_picture(data), read_picture(path))
    for broken in (b"", data[: len(data) // 3], b"no picture"):
        path.write_bytes(broken)
        with pytest.raises(UnreadablePicture) as of_file:
            read_picture(path)
        with pytest.raises(UnreadablePicture) as of_bytes:
            read_picture(broken)
        assert str(of_bytes.value).split(" at 0x")[0] == str(of_file.value).split(" at 0x")[0]


def test_the_content_decides_not_the_name(tmp_path):
    image = noise("RGB", 5, 3, 0)
    path = write(tmp_path / "x.jpg", encoded(image, "PNG"))
    assert np.array_equal(read_picture(path), np.asarray(image))


def bombs() -> dict[str, bytes]:
    side = 50_000
    small = encoded(Image.new("L", (1, 1)), "BMP")
    bmp = small[:18] + struct.pack("<ii", side, side) + small[26:]
    tiff = bytearray(encoded(Image.new("L", (1, 1)), "TIFF"))
    start = struct.unpack("<I", tiff[4:8])[0] + 2
    for entry in range(start, len(tiff) - 12, 12):
        if struct.unpack("<H", tiff[entry : entry + 2])[0] in (256, 257):
            tiff[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, side)
    gif = encoded(Image.new("L", (1, 1)), "GIF")
    return {
        "PNG": png(side, side, 1, 0, b"\0"),
        "BMP": bmp,
        "TIFF": bytes(tiff),
        "GIF": gif[:6] + struct.pack("<HH", side, side) + gif[10:],
    }


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_a_bomb_is_refused_by_its_header(tmp_path, kind):
    path = write(tmp_path / "bomb", bombs()[kind])
    assert path.stat().st_size < 2000
    for read in (read_picture, read_size):
        with pytest.raises(UnreadablePicture, match=r"too many pixels, more than .* megapixels"):
            read(path)


def test_the_limit_of_pixels_is_exact(tmp_path):
    path = write(tmp_path / "x", encoded(noise("L", 30, 40, 0), "PNG"))
    assert read_picture(path, max_image_pixels=1200).shape == (40, 30, 3)
    with pytest.raises(UnreadablePicture, match="30 x 40 pixels"):
        read_picture(path, max_image_pixels=1199)


def reason_for(path: Path) -> str:
    with pytest.raises(UnreadablePicture) as caught:
        read_picture(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path.parent) not in text
    return text


def test_what_is_no_picture_is_refused_with_its_reason(tmp_path):
    assert reason_for(write(tmp_path / "zero.jpg", b"")) == "the file is empty (0 bytes)"
    assert "not a picture" in reason_for(write(tmp_path / "text.jpg", b"some words\n" * 9))
    assert "not a picture" in reason_for(write(tmp_path / "x.ppm", b"P6 1 1 255 abc"))
    assert reason_for(tmp_path / "gone.png") == "no such file"
    (tmp_path / "folder.png").mkdir()
    assert reason_for(tmp_path / "folder.png") == "not a file"
    os.mkfifo(tmp_path / "pipe.png")
    assert reason_for(tmp_path / "pipe.png") == "not a file"
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert reason_for(tmp_path / "loop.png") == "can't be read: Too many levels of symbolic links"
    for mode, word in (("I", "integer"), ("F", "float")):
        data = encoded(Image.new(mode, (2, 2)), "TIFF")
        assert f"32-bit {word}" in reason_for(write(tmp_path / "x.tif", data))


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = write(tmp_path / "x.png", encoded(noise("L", 3, 3, 0), "PNG"))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    assert reason_for(path) == "can't be read: Permission denied"


@pytest.mark.parametrize("kind", [KeyError, AttributeError, AssertionError, RuntimeError])
def test_whatever_a_decoder_raises_is_damage(tmp_path, monkeypatch, kind):
    path = write(tmp_path / "x.png", encoded(noise("L", 3, 3, 0), "PNG"))

    def fail(*args):
        raise kind("two\nlines")

    monkeypatch.setattr(PngImageFile, "load", fail)
    assert reason_for(path).startswith("damaged: ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_cut_file_is_refused(tmp_path, photo, kind, part):
    data = encoded(Image.fromarray(photo(60, 40)), kind)
    reason_for(write(tmp_path / "cut", data[: int(len(data) * part)]))


VALID = [
    *(encoded(noise(mode, 17, 11, 0), kind) for kind, mode in LOSSLESS),
    *(encoded(noise(mode, 17, 11, 0), "JPEG") for mode in ("L", "RGB", "CMYK")),
    encoded(noise("RGB", 17, 11, 0), "JPEG", progressive=True, comment=b"words"),
    encoded(noise("RGB", 17, 11, 0), "WEBP", quality=50),
    *(
        encoded(noise("RGB", 17, 11, 0), "TIFF", compression=name)
        for name in ("tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate")
    ),
    encoded(noise("P", 17, 11, 0), "GIF", save_all=True, append_images=[noise("P", 17, 11, 1)]),
]


@settings(SLOW_OK, max_examples=250)
@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    near=st.sampled_from([1.0, 0.1]),
    cut=st.floats(0, 1),
)
def test_damage_of_any_kind_is_decoded_or_refused(tmp_path, data, changes, near, cut):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * near * (len(damaged) - 1))] = value
    if cut < 0.5:
        damaged = damaged[: int(2 * cut * len(damaged))]
    path = write(tmp_path / "x", bytes(damaged))
    try:
        got = read_picture(path, max_image_pixels=1_000_000)
    except UnreadablePicture as error:
        reason = str(error)
    else:
        reason = ""
        assert got.dtype == np.uint8
        assert got.ndim == 3
        assert got.shape[2] == 3
        assert got.size
    assert "\n" not in reason


def test_the_size_is_read_without_turning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / "x", encoded(noise("RGB", 5, 3, 0), "JPEG", exif=exif))
    assert read_size(path) == (3, 5)
    with pytest.raises(UnreadablePicture, match="no such file"):
        read_size(tmp_path / "gone")


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_a_header_says_how_many_frames_there_are(tmp_path, kind):
    """A JPEG with a preview behind it, as telephones write, is no film."""
    frames = [Image.new("RGB", (16, 8), color) for color in ((250, 0, 0), (0, 0, 250))]
    more = {} if kind == "JPEG" else {"save_all": True, "append_images": frames[1:]}
    film = encoded(frames[0], kind, **more)
    header, _ = read_with_header(write(tmp_path / "x", film))
    assert (header.height, header.width) == (8, 16)
    assert header.format == kind.replace("MPO", "JPEG")
    assert header.animated == (kind not in ("JPEG", "MPO"))


def test_a_header_says_what_the_pixels_are(tmp_path):
    inked = write(tmp_path / "x", encoded(Image.new("CMYK", (2, 1)), "JPEG"))
    assert read_with_header(inked)[0] == Header(
        "JPEG", "CMYK", 1, 2, animated=False, transparent=False
    )
    glass = write(tmp_path / "y", encoded(Image.new("LA", (2, 1)), "PNG"))
    assert read_with_header(glass)[0].transparent
    with pytest.raises(UnreadablePicture, match="not a picture"):
        read_with_header(write(tmp_path / "z", b"text"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_a_header_has_the_sides_of_the_upright_picture(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / "x", encoded(noise("RGB", 5, 3, 0), kind, exif=exif))
    header, picture = read_with_header(path)
    assert (header.height, header.width) == picture.shape[:2]
    assert (header.height > header.width) == (orientation >= 5)
    np.testing.assert_array_equal(picture, read_picture(path))


def test_a_header_of_a_jpeg_that_is_decoded_smaller_has_its_whole_size(tmp_path):
    path = write(tmp_path / "x", encoded(noise("RGB", 400, 200, 0), "JPEG"))
    header, picture = read_with_header(path, cover=(20, 20))
    assert (header.height, header.width) == (200, 400)
    assert picture.shape == (50, 100, 3)
