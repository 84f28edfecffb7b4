"""Encoded images → pixels, with bounds: only formats of images are tried, and no image may be larger than it can be meant to be."""

from __future__ import annotations

import contextlib
import io
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ablate.errors import DataError
from ablate.text import counted, visible

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""Formats that are tried, by PIL's names; PPM includes PGM. PIL knows others, some of which run programs."""

MOST_BYTES = 1 << 26
"""Bytes of an encoded image."""

MOST_PIXELS = 1 << 26
"""Pixels of an image: a file of a few kilobytes may claim billions, and would take all of the memory."""


MOST_NAMED = 3
"""Images that a message gives the names of."""

TRANSPARENT_BECOMES = (255, 255, 255)
"""Colour behind transparent pixels: white, as most viewers show them."""

USUAL_SIDE = 224
"""Largest side that a message proposes to resize images to."""

_LOOK_FURTHER = 1_000
"""Images that are looked at before an error about different sizes, to tell the usual size."""

Trait = Literal["frames", "transparent", "cmyk", "deep"]
"""What of an image is not what its pixels are trained on."""

_TRAITS: dict[Trait, tuple[str, str]] = {
    "frames": (
        "has several frames, of which the first is used",
        "have several frames, of which the first is used",
    ),
    "transparent": (
        "has transparent pixels, which become white",
        "have transparent pixels, which become white",
    ),
    "cmyk": (
        "is CMYK, converted to RGB without a colour profile",
        "are CMYK, converted to RGB without a colour profile",
    ),
    "deep": (
        "has 16 bits in each channel, of which the upper 8 are used",
        "have 16 bits in each channel, of which the upper 8 are used",
    ),
}


class BrokenImageError(Exception):
    """An image that cannot be used. Its text says why, as what follows its name; hint: what to do about it."""

    def __init__(self, reason: str, hint: str = "repair the file or remove it") -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True)
class Decoded:
    """pixels: RGB, row by row. size: (width, height). is_grey: whether the image is stored as grey. traits: what to tell of it."""

    pixels: bytes
    size: tuple[int, int]
    is_grey: bool
    traits: frozenset[Trait] = frozenset()


@dataclass
class Survey:
    """What is found out about the images of a data set while they are decoded.

    total: images there are. place: the field that messages name. within: what stands before the name of a broken image.
    is_grey: whether all images so far are stored as grey. seen: images so far.
    """

    total: int
    place: str
    within: str = ""
    is_grey: bool = True
    seen: int = 0
    broken: list[tuple[str, BrokenImageError]] = field(default_factory=list)
    _traits: dict[Trait, list[str]] = field(default_factory=dict)
    _counts: Counter[Trait] = field(default_factory=Counter)
    _sizes: dict[tuple[int, int], str] = field(default_factory=dict)
    _sides: list[int] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the first image; None before there is one."""
        return next(iter(self._sizes), None)

    def takes(self, name: str, image: Decoded | BrokenImageError) -> bool:
        """Note an image, and return whether it can be used: it is whole, and as large as the first. Raises DataError."""
        self.seen += 1
        if isinstance(image, BrokenImageError):
            self.broken.append((self.within + name, image))
            return False
        self.is_grey &= image.is_grey
        self._sides.append(min(image.size))
        self._sizes.setdefault(image.size, name)
        for trait in image.traits:
            self._counts[trait] += 1
            named = self._traits.setdefault(trait, [])
            if len(named) < MOST_NAMED:
                named.append(name)
        if len(self._sizes) > 1 and len(self._sides) >= _LOOK_FURTHER:
            raise self._different_sizes()
        return image.size == self.size

    def check(self) -> None:
        """Raise DataError where some images are broken or differ in size."""
        if self.broken:
            raise self._refusal()
        if len(self._sizes) > 1:
            raise self._different_sizes()

    def notes(self) -> tuple[str, ...]:
        """Return what to know of the images, a sentence for each kind."""
        return tuple(
            f"{counted(self._counts[trait], 'image')} {words[self._counts[trait] > 1]}: {few(self._traits[trait], self._counts[trait])}"
            for trait, words in _TRAITS.items()
            if trait in self._traits
        )

    def _refusal(self) -> DataError:
        first, error = self.broken[0]
        if len(self.broken) == 1:
            return DataError(f"{visible(first)} {error}", place=self.place, hint=error.hint)
        named = "; ".join(f"{visible(name)} {why}" for name, why in self.broken[:MOST_NAMED])
        more = "; …" if len(self.broken) > MOST_NAMED else ""
        return DataError(
            f"{len(self.broken):,} of {self.total:,} images cannot be used: {named}{more}",
            place=self.place,
            hint=error.hint,
        )

    def _different_sizes(self) -> DataError:
        one, other = list(self._sizes.items())[:2]
        first, second = (f"{visible(name)} is {w}×{h}" for (w, h), name in (one, other))
        side = min(int(statistics.median_low(self._sides)), USUAL_SIDE)
        return DataError(
            f"the images have different sizes: {first}, {second}",
            place=self.place,
            hint=f"`--set data.resize={side}` makes every image {side}×{side}",
        )


def few(some: list[str], total: int) -> str:
    """Write the names of some of the images or files that a sentence is about. some: at least one. total: how many there are."""
    listed = ", ".join(visible(name) for name in some[:MOST_NAMED])
    return f"{listed}, …" if total > min(len(some), MOST_NAMED) else listed


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Keep quiet what decoders warn of: their warnings name no file, and what matters of them is an error or a note here.

    For the thread that starts the others: a list of filters belongs to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(content: bytes, resize: int | None) -> Decoded:
    """Return the pixels of an encoded image, turned as its EXIF orientation says, its transparent pixels white.

    resize: side of the square that it is resized to; None: as it is. Raises BrokenImageError.
    """
    import PIL.Image

    if len(content) > MOST_BYTES:
        raise BrokenImageError(f"has more than {MOST_BYTES:,} bytes", "save it smaller, or remove it")
    try:
        # From memory: decoders read a file in pieces and reopen it, which takes twice as long.
        with PIL.Image.open(io.BytesIO(content), formats=_formats()) as image:
            _check(image)
            traits = _traits(image)
            image.load()
            upright = _upright(image)
            mode = upright.mode
            rgb = _opaque(upright)
    except BrokenImageError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(f"more than {2 * (PIL.Image.MAX_IMAGE_PIXELS or 0):,}") from error
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        unknown = isinstance(error, PIL.UnidentifiedImageError)
        reason = _unknown(content) if unknown else str(error) or type(error).__name__
        raise BrokenImageError(
            f"cannot be read as an image: {visible(reason)}",
            *(["`git lfs pull` fetches the files that pointers stand for"] if reason == _POINTER else []),
        ) from error
    if rgb is None:
        rgb = upright.convert("RGB")
    else:
        traits |= {"transparent"}
    if resize is not None and rgb.size != (resize, resize):
        rgb = rgb.resize((resize, resize), PIL.Image.Resampling.BILINEAR)
    return Decoded(rgb.tobytes(), rgb.size, mode in {"1", "L", "LA", "La"}, frozenset(traits))


def _formats() -> tuple[str, ...]:
    """Return the formats that this PIL knows: some builds lack AVIF."""
    import PIL.Image

    PIL.Image.init()
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN)


def _check(image: Image) -> None:
    """Raise BrokenImageError for an image, opened and not yet decoded, that must not be decoded."""
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(f"{image.width:,}×{image.height:,}")
    # A conversion would clip their values to 0…255 without an error.
    if image.mode.startswith(("I", "F")):
        raise BrokenImageError(
            f"has more than 8 bits in each channel (mode {image.mode})",
            "convert it to 8 bits in each channel",
        )


def _too_large(claimed: str) -> BrokenImageError:
    return BrokenImageError(
        f"claims {claimed} pixels; at most {MOST_PIXELS:,} pixels", "save it smaller, or remove it"
    )


def _traits(image: Image) -> set[Trait]:
    """Return what to tell of an image that is opened and not yet decoded."""
    traits: set[Trait] = set()
    # The frames of an MPO, as phones write JPEGs, are previews of the one photograph.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        traits.add("frames")
    if image.mode == "CMYK":
        traits.add("cmyk")
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        traits.add("deep")
    return traits


def _upright(image: Image) -> Image:
    """Return an image, decoded, as its EXIF orientation says it is to be seen. PIL's `exif_transpose` copies every image."""
    import PIL.Image

    turn = PIL.Image.Transpose
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # noqa: BLE001 — parsers raise all kinds of errors on damaged metadata, and the pixels are whole
        return image
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    method = turns.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _opaque(image: Image) -> Image | None:
    """Return an image with what is transparent in it over white, as RGB; None where nothing is transparent."""
    import PIL.Image

    if not (image.has_transparency_data or image.mode in {"La", "RGBa"}):
        return None
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    least, _ = rgba.getchannel("A").getextrema()
    if least == 255:
        return None
    behind = PIL.Image.new("RGBA", rgba.size, (*TRANSPARENT_BECOMES, 255))
    return PIL.Image.alpha_composite(behind, rgba).convert("RGB")


_SIGNATURES: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("PNG", lambda head: head.startswith(b"\x89PNG\r\n\x1a\n")),
    ("JPEG", lambda head: head.startswith(b"\xff\xd8\xff")),
    ("GIF", lambda head: head[:6] in (b"GIF87a", b"GIF89a")),
    ("WebP", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
    ("TIFF", lambda head: head[:4] in (b"II*\0", b"MM\0*")),
    ("BMP", lambda head: head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"),
    ("AVIF", lambda head: head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis")),
)

_LFS = "a pointer of Git LFS"
_POINTER = f"it is {_LFS}"

_FOREIGN: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    (
        "HEIC",
        lambda head: head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"),
    ),
    ("JPEG XL", lambda head: head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL "))),
    ("JPEG 2000", lambda head: head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"))),
    ("PostScript", lambda head: head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6"))),
    ("PDF", lambda head: head.startswith(b"%PDF")),
    ("NumPy", lambda head: head.startswith(b"\x93NUMPY")),
    ("a web page or XML", lambda head: head.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml", b"<svg ")),
    (_LFS, lambda head: head.startswith(b"version https://git-lfs")),
    ("a zip archive", lambda head: head.startswith(b"PK\x03\x04")),
)


def image_format(head: bytes) -> str | None:
    """Return the format of an image by its first 32 bytes; None where it is none that is read."""
    return next((name for name, fits in _SIGNATURES if fits(head)), None)


def _unknown(content: bytes) -> str:
    """Return why content that PIL does not know is no image."""
    if not content:
        return "it is empty"
    if (known := image_format(content[:32])) is not None:
        return f"it begins as {known} and is damaged"
    other = next((name for name, fits in _FOREIGN if fits(content[:32])), None)
    return "its format is unknown" if other is None else f"it is {other}"


def decoded_file(path: Path, resize: int | None) -> Decoded | BrokenImageError:
    """Return the pixels of an image file, or why it cannot be used. resize: as for `decode`."""
    try:
        with path.open("rb") as file:
            return decode(file.read(MOST_BYTES + 1), resize)
    except BrokenImageError as error:
        return error
    except OSError as error:
        return BrokenImageError(f"cannot be read: {error.strerror or error}")
