"""One stream of random numbers per source of variation, all derived from the run's seed by name.

A replicate's seed fixes everything that varies (Bouthillier et al., MLSys 2021): initial weights, batch order,
augmentation, dropout, and the split where the study asks for it. Deriving by name keeps the streams apart: a new
source shifts no other.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Source = Literal["weights", "order", "augmentation", "colour", "cutout", "mixup", "dropout", "split"]
FIXED_SPLIT = "split of every replicate"


def derive(seed: int, source: str) -> int:
    """Return the 63-bit seed of `source` under a run's `seed`."""
    digest = hashlib.sha256(f"{seed}/{source}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def split_seed(seed: int, split: Literal["fixed", "per-seed"]) -> int:
    """Return the seed of a run's subset and validation split. split: as in `data.split`."""
    return derive(seed, "split") if split == "per-seed" else derive(0, FIXED_SPLIT)


def generator(seed: int, source: Source, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on `device` at the beginning of the stream of `source`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, source))


def batch_streams(seed: int, device: torch.device) -> dict[str, torch.Generator]:
    """Return the streams that batches are drawn from, each at its beginning.

    Order and mixing are drawn on the CPU, pixels on the device where they are.
    """
    places: dict[Source, torch.device | str] = {
        "order": "cpu",
        "mixup": "cpu",
        "augmentation": device,
        "colour": device,
        "cutout": device,
    }
    return {source: generator(seed, source, place) for source, place in places.items()}
