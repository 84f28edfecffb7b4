"""The learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable

from ablate import config as configs


def schedule(
    config: configs.Constant | configs.Cosine | configs.Step | configs.OneCycle, peak: float, steps: int
) -> Callable[[int], float]:
    """Return a function: step 0 … steps − 1 → learning rate.

    `onecycle` follows `torch.optim.lr_scheduler.OneCycleLR` step by step, the others `LinearLR` and then `ConstantLR`,
    `CosineAnnealingLR` or `MultiStepLR`.
    """
    if isinstance(config, configs.OneCycle):
        return _onecycle(config.warmup, peak, steps)
    warmup = min(round(config.warmup * steps), steps - 1)

    def without_warmup(step: int) -> float:
        if isinstance(config, configs.Cosine):
            return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        if isinstance(config, configs.Step):
            # A tenth of seventy steps is seven, also where floats make it a hair more.
            milestones_passed = sum(step + 1e-9 >= share * steps for share in config.milestones)
            return peak * config.gamma**milestones_passed
        return peak

    def rate(step: int) -> float:
        # A cosine begins where the warm-up ends; a milestone within it counts at once.
        return without_warmup(max(step, warmup) if isinstance(config, configs.Cosine) else step) * (
            (step + 1) / (warmup + 1) if step < warmup else 1.0
        )

    return rate


def _onecycle(warmup: float, peak: float, steps: int) -> Callable[[int], float]:
    top = warmup * steps - 1
    low, end = peak / 25, peak / 25 / 1e4

    def rate(step: int) -> float:
        if step <= top:
            return _cosine(low, peak, step / top if top > 0 else 1.0)
        return _cosine(peak, end, (step - top) / (steps - 1 - top) if steps - 1 > top else 1.0)

    return rate


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
