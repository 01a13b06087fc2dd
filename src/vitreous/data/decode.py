"""Reading one file, or its bytes, into an upright RGB picture, the same in training and in use.

The contract, kept by every door of vitreous: the first frame, turned upright by its EXIF
orientation, as 8-bit RGB. Transparency is laid over white; 16-bit values keep their upper eight
bits; palettes and CMYK are converted by Pillow. Sizes are checked before anything is decoded, and
only the formats below are tried, recognised by content. A JPEG that is about to become much smaller
is decoded at a half, a quarter or an eighth of its size. What to do with the array afterwards
(resize, crop, normalise) is in `preprocess`.
"""

import errno
import io
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from vitreous.data.shards import entry_of, open_inside
from vitreous.data.table import ENDINGS
from vitreous.errors import UnreadablePicture, VitreousError, first_line

FORMATS = tuple(ENDINGS)

#: Pictures of formats that are not read: the bytes 4 to 12 of their files.
_UNREAD = {
    b"ftypheic": "a HEIC",
    b"ftypheix": "a HEIC",
    b"ftyphevc": "a HEIC",
    b"ftypmif1": "a HEIF",
    b"ftypmsf1": "a HEIF",
    b"ftypavif": "an AVIF",
    b"JXL \r\n\x87\n": "a JPEG XL",
    b"jP  \r\n\x87\n": "a JPEG 2000",
}

#: Faults of a path that trying again doesn't mend.
_LASTING = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

#: Pillow refuses above twice its own constant; below that it only warns, and we check ourselves.
MAX_IMAGE_PIXELS = 2 * 89_478_485

# Said once for the process, because Python's scoped filters don't hold between threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

#: Of bytes that anybody may have sent: a progressive JPEG is decoded in passes over all its pixels,
#: some ten in practice, and a pass may be written in a few bytes.
_MAX_PASSES = 100
#: The header of one, whose length goes with its number of components, or libjpeg refuses it. The
#: two bytes of the marker alone stand in the film behind a telephone's motion photo, too.
_PASS = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")

#: How many times the wanted size a JPEG that is decoded smaller still has, at least. With two, no
#: value of the resized picture moved by more than 2 of 255 (docs/experiments/LOG.md).
OVERSAMPLING = 2

#: The reason where there is none.
NO_FILE = "no such file"

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")

#: EXIF 2.32, section 4.6.4 A: what makes a picture of each orientation upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(
    source: Path | bytes,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    cover: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decode a file into an upright RGB array.

    Args:
        source: a JPEG, PNG, WebP, BMP, TIFF or GIF, whatever its name says, or all its bytes,
            which may be anybody's and have a limit more.
        max_image_pixels: more than this is refused before decoding.
        cover: height and width in pixels that the picture will be scaled to cover; a JPEG of
            several times that size comes smaller than it is.

    Shape:
        -> (height, width, 3), uint8

    Raises:
        UnreadablePicture: for anything that isn't a whole picture within the limits.
    """
    with _opened(source, max_image_pixels) as image:
        return _decoded(image, cover)


@dataclass(frozen=True)
class Header:
    """What a file says of its picture.

    Args:
        format: one of `FORMATS`, by its content.
        mode: of its pixels, as Pillow names them: "RGB", "L", "CMYK", "I;16", ...
        height: in pixels, of the upright picture.
        width: likewise.
        animated: whether there are more frames than the first, which is the one that is read.
        transparent: whether it may have places to see through.
    """

    format: str
    mode: str
    height: int
    width: int
    animated: bool
    transparent: bool


def read_with_header(path: Path, cover: tuple[int, int] | None = None) -> tuple[Header, np.ndarray]:
    """What a file is, and its picture as `read_picture` has it, of one reading.

    Raises:
        UnreadablePicture: as there.
    """
    with _opened(path, MAX_IMAGE_PIXELS) as image:
        # Decoding changes these.
        mode, size, transparent = image.mode, image.size, image.has_transparency_data
        picture = _decoded(image, cover)
        width, height = size[::-1] if _lies_on_its_side(image) else size
        # A JPEG with further pictures behind it, as some telephones write for previews and depth.
        is_multi_picture = image.format == "MPO"
        header = Header(
            format="JPEG" if is_multi_picture else str(image.format),
            mode=mode,
            height=height,
            width=width,
            animated=getattr(image, "is_animated", False) and not is_multi_picture,
            transparent=transparent,
        )
    return header, picture


def read_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels as the header has them, before any turning; quick.

    Of a picture in a shard as it was packed, which is upright.

    Raises:
        UnreadablePicture: where there is no such header.
    """
    packed = entry_of(path)
    if packed and packed.height:
        return packed.height, packed.width
    with _opened(path, MAX_IMAGE_PIXELS) as image:
        return image.height, image.width


@contextmanager
def _opened(source: Path | bytes, max_image_pixels: int) -> Iterator[Image.Image]:
    """A file opened by Pillow."""
    # By name, Pillow would map the file, and it maps turned TIFFs with their sides swapped.
    with _told_as_unreadable(), _stream(source) as file, _image(file) as image:
        _check_size(image, max_image_pixels)
        yield image


def _check_size(image: Image.Image, max_image_pixels: int) -> None:
    if not image.width * image.height:
        raise UnreadablePicture("it has no pixels")
    if image.width * image.height > max_image_pixels:
        raise _too_large(f"{image.width} x {image.height} pixels", max_image_pixels)


@contextmanager
def _told_as_unreadable() -> Iterator[None]:
    """All that goes wrong with a picture becomes one kind of error."""
    try:
        yield
    except VitreousError:  # one of these, or a damaged shard, which is no matter of a picture
        raise
    except Image.DecompressionBombError:
        raise _too_large("too many pixels", MAX_IMAGE_PIXELS) from None
    except FileNotFoundError:
        raise UnreadablePicture(NO_FILE) from None
    except Exception as error:
        # Pillow's decoders raise whatever they stumble over, a KeyError or an AttributeError too.
        if isinstance(error, MemoryError):
            raise UnreadablePicture("can't be read: memory is too small", passing=True) from None
        if isinstance(error, OSError) and error.strerror:  # the system's own, not Pillow's
            passing = error.errno not in _LASTING
            raise UnreadablePicture(f"can't be read: {error.strerror}", passing) from None
        raise UnreadablePicture(f"damaged: {first_line(error)}") from None


def _image(file: BinaryIO) -> Image.Image:
    """A file's picture, not decoded yet."""
    try:
        return Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError:
        file.seek(0)
        if known := unread_format(file.read(12)):
            raise UnreadablePicture(
                f"{known} picture, which isn't read: convert it to JPEG or PNG"
            ) from None
        raise UnreadablePicture(f"not a picture in a known format ({', '.join(FORMATS)})") from None


def unread_format(head: bytes) -> str | None:
    """The format of a picture that isn't read, by how its file begins, with its article."""
    return _UNREAD.get(head[4:12])


def _stream(source: Path | bytes) -> BinaryIO:
    if isinstance(source, Path):
        return open_file(source)
    if not source:
        raise UnreadablePicture("the file is empty (0 bytes)")
    if source.startswith(b"\xff\xd8") and len(_PASS.findall(source)) > _MAX_PASSES:
        raise UnreadablePicture(f"a JPEG of more than {_MAX_PASSES} passes")
    return io.BytesIO(source)


def open_file(path: Path) -> BinaryIO:
    """A picture's file, or its bytes inside a shard.

    Raises:
        UnreadablePicture: where it is no file, or empty.
        OSError: where it can't be opened.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        inside = open_inside(path)
        if inside is None:
            raise
        return inside
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
        raise UnreadablePicture("not a file")
    if status.st_size == 0:
        raise UnreadablePicture("the file is empty (0 bytes)")
    return path.open("rb")


def _decoded(image: Image.Image, cover: tuple[int, int] | None) -> np.ndarray:
    if cover:
        _decode_smaller(image, cover)
    image.load()
    return _to_rgb(_upright(image))


def from_pillow(image: Image.Image) -> np.ndarray:
    """An image that somebody opened or made with Pillow, by the same contract, in its whole size.

    Shape:
        -> (height, width, 3), uint8

    Raises:
        UnreadablePicture: for one that is damaged, empty or too large.
    """
    with _told_as_unreadable():
        _check_size(image, MAX_IMAGE_PIXELS)
        return _decoded(image, cover=None)


def _decode_smaller(image: Image.Image, cover: tuple[int, int]) -> None:
    """Let the JPEG decoder leave out frequencies that a later resize would throw away."""
    if not isinstance(image, JpegImageFile):
        return
    height, width = cover
    if _lies_on_its_side(image):
        height, width = width, height
    image.draft(None, (OVERSAMPLING * width, OVERSAMPLING * height))


def _too_large(found: str, limit: int) -> UnreadablePicture:
    return UnreadablePicture(f"{found}, more than the limit of {limit / 1e6:g} megapixels")


def _upright(image: Image.Image) -> Image.Image:
    """Turn by the EXIF orientation.

    Pillow's `exif_transpose` also writes all other EXIF tags anew, and fails on those that it
    reads but can't write; whole pictures would be refused.
    """
    method = _UPRIGHT.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _orientation(image: Image.Image) -> int:
    """As EXIF has it, from 1 to 8; 1 where it says anything else."""
    try:
        found = int(image.getexif().get(ExifTags.Base.Orientation, 1))
        return found if 1 <= found <= 8 else 1
    except Exception:  # an EXIF block beyond reading says nothing about the pixels
        return 1


def _lies_on_its_side(image: Image.Image) -> bool:
    """Whether height and width change places when the picture is turned upright."""
    return _orientation(image) >= 5


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image).astype(np.uint16)
        high_byte = (values >> 8).astype(np.uint8)
        clear = image.info.get("transparency")
        if clear is not None:  # PNG's one value that is seen through
            high_byte[values == clear] = 255
        return np.repeat(high_byte[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise UnreadablePicture(
            f"32-bit {'integer' if image.mode == 'I' else 'float'} pixels have no agreed range; "
            "save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        # No copy that isn't needed: each takes four bytes a pixel.
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        del layer
    # A copy: the array must own its pixels once the file is closed.
    return np.array(image.convert("RGB"))
