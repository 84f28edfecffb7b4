"""A picture of one image as the input of a network: the image, its normalised channels with their values, augmented copies.

One SVG, written without a plotting library: its numbers are text, sharp at any size and searchable.
"""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WRITTEN = 40
"""Side in pixels up to which every value is written; of larger images, only those of a window in the middle."""

CELL, PANEL = 26, 640
"""Units of the drawing: the least side of a pixel with its value, and the least width of a panel."""

_GAP, _MARGIN, _TITLE = 40, 40, 34
_INK, _MUTED, _FRAME = "#1a2027", "#5a6470", "#b3430d"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_COLUMNS = 8


def normalised(image: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Normalise (C, H, W) uint8 → (C, H, W): (x / 255 − mean) / std, channel by channel, as training computes it."""
    shape = (-1, 1, 1)
    scale = (1 / (255 * np.asarray(std, dtype=np.float64))).astype(np.float32).reshape(shape)
    shift = (-np.asarray(mean, dtype=np.float64) / np.asarray(std)).astype(np.float32).reshape(shape)
    values: NDArray[np.float32] = image.astype(np.float32) * scale + shift
    return values


def svg(
    image: NDArray[np.uint8],
    values: NDArray[np.float32],
    augmented: NDArray[np.uint8],
    *,
    title: str,
    caption: str,
) -> str:
    """Return the drawing. image: (C, H, W). values: the same, normalised. augmented: (n, C, H, W), with their caption."""
    _, height, width = image.shape
    top, left = max(0, (height - WRITTEN) // 2), max(0, (width - WRITTEN) // 2)
    window = (slice(top, top + min(height, WRITTEN)), slice(left, left + min(width, WRITTEN)))
    whole = window[0].stop - top == height and window[1].stop - left == width
    rows, columns = values[0][window].shape
    cell = max(CELL, PANEL // columns)
    wide, high = columns * cell, rows * cell

    names = {1: ["grey"], 3: ["red", "green", "blue"]}.get(len(values), [str(i) for i in range(len(values))])
    where = "" if whole else f", the middle {rows}×{columns} pixels (framed in the image)"
    panels = [_title(f"{width}×{height} pixels") + _whole(image, window, whole=whole, size=(wide, high))]
    panels += [
        _title(f"{name}, {plane.min():.2f} to {plane.max():.2f}{where}") + _written(plane[window], cell)
        for name, plane in zip(names, values, strict=True)
    ]
    across = 2
    parts = []
    y = float(_MARGIN + 46)
    parts.append(_text(_MARGIN, _MARGIN + 14, title, 26, _INK, weight=600))
    for i, panel in enumerate(panels):
        x = _MARGIN + (i % across) * (wide + _GAP)
        at = y + (i // across) * (high + _TITLE + _GAP)
        parts.append(f'<g transform="translate({x} {at:g})">{panel}</g>')
    y += -(-len(panels) // across) * (high + _TITLE + _GAP)
    full = across * wide + (across - 1) * _GAP
    sheet, tall = _sheet(augmented, full)
    parts.append(f'<g transform="translate({_MARGIN} {y:g})">{_title(caption)}{sheet}</g>')
    y += tall + _TITLE
    size = f"{full + 2 * _MARGIN:g} {y + _MARGIN:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{full + 2 * _MARGIN:g}"'
        f' height="{y + _MARGIN:g}" font-family="{_FONT}"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _title(text: str) -> str:
    return _text(0, 18, text, 18, _MUTED)


def _text(x: float, y: float, text: str, size: int, fill: str, weight: int = 400) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{fill}">'
        f"{escape(text)}</text>"
    )


def _whole(
    image: NDArray[np.uint8], window: tuple[slice, slice], *, whole: bool, size: tuple[int, int]
) -> str:
    """Draw the image as large as a panel, with a frame around the window where that is only a part of it."""
    _, height, width = image.shape
    scale = min(size[0] / width, size[1] / height)
    drawn = _png(image, 0, _TITLE, width * scale, height * scale)
    if whole:
        return drawn
    rows, columns = window
    return drawn + (
        f'<rect x="{columns.start * scale:g}" y="{_TITLE + rows.start * scale:g}"'
        f' width="{(columns.stop - columns.start) * scale:g}" height="{(rows.stop - rows.start) * scale:g}"'
        f' fill="none" stroke="{_FRAME}" stroke-width="3"/>'
    )


def _written(plane: NDArray[np.float32], cell: int) -> str:
    """Draw a cell for each pixel, from black (the least value) to white, with its value in a contrasting colour."""
    rows, columns = plane.shape
    low, high = float(plane.min()), float(plane.max())
    share = (plane - low) / (high - low) if high > low else np.full_like(plane, 0.5)
    shades = np.round(255 * share).astype(np.uint8)
    texts = []
    for (row, column), value in np.ndenumerate(plane):
        x, y = (column + 0.5) * cell, _TITLE + (row + 0.61) * cell
        ink = "#000" if shades[row, column] > 127 else "#fff"
        texts.append(f'<text x="{x:g}" y="{y:g}" fill="{ink}">{value:.2f}</text>')
    return (
        _png(shades[None], 0, _TITLE, columns * cell, rows * cell)
        + f'<g font-size="{0.31 * cell:.3g}" text-anchor="middle">{"".join(texts)}</g>'
    )


def _sheet(images: NDArray[np.uint8], full: float) -> tuple[str, float]:
    """Draw images in rows that are `full` wide → the drawing and its height below the title."""
    step = (full + 12) / _COLUMNS
    side = step - 12
    height = side * images.shape[2] / images.shape[3]
    drawn = [
        _png(image, (i % _COLUMNS) * step, _TITLE + (i // _COLUMNS) * (height + 12), side, height)
        for i, image in enumerate(images)
    ]
    return "".join(drawn), -(-len(images) // _COLUMNS) * (height + 12)


def _png(image: NDArray[np.uint8], x: float, y: float, width: float, height: float) -> str:
    """Embed an image (C, H, W) with its pixels as squares."""
    from PIL import Image

    buffer = io.BytesIO()
    pixels: Any = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" preserveAspectRatio="none"'
        f' style="image-rendering: pixelated" href="data:image/png;base64,{content}"/>'
    )
