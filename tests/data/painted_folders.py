"""Small image folders for the tests, and a progress that counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def paint(root: Path, *, classes=("cat", "dog"), train=6, test=3, mode="RGB", size=(8, 6), seed=0) -> Path:
    """An image folder of random PNGs. size: (width, height)."""
    generator = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{i}.png")
    return root


class Counter:
    """Progress that counts how often it was called: never, where nothing is decoded."""

    def __init__(self):
        self.calls = []

    def __call__(self, what, done, total):
        self.calls.append((what, done, total))
