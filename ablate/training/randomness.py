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
    """The 63-bit seed of `source` under a run's `seed`."""
    digest = hashlib.sha256(f"{seed}/{source}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, source: Source, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` at the beginning of the stream of `source`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, source))
