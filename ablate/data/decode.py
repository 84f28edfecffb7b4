"""Encoded images → pixels, with bounds: only formats of images are tried, and no image may be larger than it can be meant to be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are tried, by PIL's names; PPM includes PGM. PIL knows others, some of which run programs."""

MOST_BYTES = 1 << 26
"""Bytes of an encoded image."""

MOST_PIXELS = 1 << 26
"""Pixels of an image: a file of a few kilobytes may claim billions, and would take all of the memory."""


MOST_NAMED = 3
"""Images that cannot be used of which a message gives the names."""


class BrokenImageError(Exception):
    """An image that cannot be used. Its text says why, as what follows its name; hint: what to do about it."""

    def __init__(self, reason: str, hint: str = "repair the file or remove it") -> None:
        super().__init__(reason)
        self.hint = hint


def refusal(broken: Sequence[tuple[str, BrokenImageError]], total: int, place: str) -> DataError:
    """Return the error about images that cannot be used. broken: at least one, each with its name. total: images there are."""
    first, error = broken[0]
    if len(broken) == 1:
        return DataError(f"{first} {error}", place=place, hint=error.hint)
    named = "; ".join(f"{name} {why}" for name, why in broken[:MOST_NAMED])
    more = "; …" if len(broken) > MOST_NAMED else ""
    return DataError(
        f"{len(broken):,} of {total:,} images cannot be used: {named}{more}", place=place, hint=error.hint
    )


@dataclass(frozen=True)
class Decoded:
    """pixels: RGB, row by row. size: (width, height). is_grey: whether the image is stored as grey."""

    pixels: bytes
    size: tuple[int, int]
    is_grey: bool


def decode(content: bytes, resize: int | None) -> Decoded:
    """Return the pixels of an encoded image. resize: side of the square that it is resized to; None: as it is.

    Raises BrokenImageError.
    """
    import PIL.Image

    if len(content) > MOST_BYTES:
        raise BrokenImageError(f"has {len(content):,} bytes; at most {MOST_BYTES:,}")
    try:
        # From memory: decoders read a file in pieces and reopen it, which takes twice as long.
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            mode = _checked(image)
            rgb = image.convert("RGB")
    except BrokenImageError:
        raise
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        unknown = isinstance(error, PIL.UnidentifiedImageError)
        reason = "it is empty or its format is unknown" if unknown else str(error) or type(error).__name__
        raise BrokenImageError(f"cannot be read as an image: {reason}") from error
    if resize is not None and rgb.size != (resize, resize):
        rgb = rgb.resize((resize, resize), PIL.Image.Resampling.BILINEAR)
    return Decoded(rgb.tobytes(), rgb.size, mode in {"1", "L", "LA", "La"})


def _checked(image: Image) -> str:
    """Return the mode of an image that is opened and not yet decoded. Raises BrokenImageError for one that must not be."""
    if image.width * image.height > MOST_PIXELS:
        raise BrokenImageError(
            f"claims {image.width:,}×{image.height:,} pixels; at most {MOST_PIXELS:,} pixels"
        )
    # A conversion would clip their values to 0…255 without an error.
    if image.mode.startswith(("I", "F")):
        raise BrokenImageError(
            f"has more than 8 bits in each channel (mode {image.mode})",
            "convert it to 8 bits in each channel",
        )
    return image.mode


def decoded_file(path: Path, resize: int | None) -> Decoded | BrokenImageError:
    """Return the pixels of an image file, or why it cannot be used. resize: as for `decode`."""
    try:
        with path.open("rb") as file:
            return decode(file.read(MOST_BYTES + 1), resize)
    except BrokenImageError as error:
        return error
    except OSError as error:
        return BrokenImageError(f"cannot be read: {error.strerror or error}")
