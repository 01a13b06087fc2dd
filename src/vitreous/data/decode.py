"""Reading one file into an upright RGB picture, the same in training and in use.

The contract, kept by every door of vitreous: the first frame, turned upright by its EXIF
orientation, as 8-bit RGB. Transparency is laid over white; 16-bit values keep their upper eight
bits; palettes and CMYK are converted by Pillow. Sizes are checked before anything is decoded, and
only the formats below are tried, recognised by content. What to do with the array afterwards
(resize, crop, normalise) is in `preprocess`.
"""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vitreous.errors import UnreadablePicture

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))

#: Pillow refuses above twice its own constant; below that it only warns, and we check ourselves.
MAX_IMAGE_PIXELS = 2 * 89_478_485

# Said once for the process, because Python's scoped filters don't hold between threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

#: What Pillow's decoders raise for damaged files, beside its own errors.
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, OverflowError,
          MemoryError, struct.error, zlib.error)  # fmt: skip

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_picture(path: Path, max_image_pixels: int = MAX_IMAGE_PIXELS) -> np.ndarray:
    """Decode a file into an upright RGB array.

    Args:
        path: a JPEG, PNG, WebP, BMP, TIFF or GIF, whatever its name says.
        max_image_pixels: more than this is refused before decoding.

    Shape:
        -> (height, width, 3), uint8

    Raises:
        UnreadablePicture: for anything that isn't a whole picture within the limits.
    """
    try:
        if path.stat().st_size == 0:
            raise UnreadablePicture("the file is empty (0 bytes)")
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_image_pixels:
                raise _too_large(f"{width} x {height} pixels", max_image_pixels)
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError:
        raise _too_large("too many pixels", max_image_pixels) from None
    except Image.UnidentifiedImageError:
        raise UnreadablePicture(
            f"not a picture in a known format ({', '.join(FORMATS)})"
        ) from None
    except FileNotFoundError:
        raise UnreadablePicture("no such file") from None
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadablePicture(f"damaged: {reason}") from None


def _too_large(found: str, limit: int) -> UnreadablePicture:
    return UnreadablePicture(f"{found}, more than the limit of {limit // 1_000_000} megapixels")


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in _SIXTEEN_BIT:
        high_byte = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(high_byte[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise UnreadablePicture(
            f"32-bit {'integer' if image.mode == 'I' else 'float'} pixels have no agreed range; "
            "save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer)
    # A copy: the array must own its pixels once the file is closed.
    return np.array(image.convert("RGB"))
