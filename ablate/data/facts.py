"""What a plan knows of the data that an arm trains on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataFacts:
    """What an arm trains on. fingerprint: digest of the content ('' where training brings its own data, then 0 images).

    train, validation, test: numbers of images. shape: of one image, (channels, height, width). classes: their names.
    """

    fingerprint: str = ""
    train: int = 0
    validation: int = 0
    test: int = 0
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
