"""What to tell a user whose run ran out of memory."""

from __future__ import annotations

import torch

from ablate.config import RunConfig
from ablate.data.datasets import Dataset
from ablate.training.builtin.batches import evaluation_batch
from ablate.training.builtin.learner import make_learner
from ablate.training.outcome import is_out_of_memory


def advice(config: RunConfig, data: Dataset, device: torch.device) -> str:
    """Return why a run ran out of memory, with the batch size that would fit; found by trying.

    Sizes are tried from the smallest up: what failed leaves the memory in pieces, and less of it to the next. Each is tried with a
    quarter more: a run needs memory for more than its steps.
    """
    wanted = min(config.training.batch_size, len(data.train_labels))
    smaller = [wanted >> halvings for halvings in range(1, wanted.bit_length())]
    fitting, failing = 0, 0
    for size in (*reversed(smaller), wanted):
        try:
            _try(config, data, device, size if size == wanted else size + size // 4)
        except Exception as error:  # noqa: BLE001 — for any reason, this size does not fit
            if not is_out_of_memory(error):
                continue  # a batch norm refuses a single image, for one
            failing = size
            break
        fitting = size
    if fitting == wanted:
        return f"out of memory, though a step of {wanted} images fits by itself: what else runs on {device}?"
    if fitting:
        return f"out of memory with training.batch_size {config.training.batch_size}; {fitting} would fit"
    return f"out of memory, even with a training.batch_size of {failing or wanted} on {device}"


def _try(config: RunConfig, data: Dataset, device: torch.device, size: int) -> None:
    """Train and evaluate a new network on batches of `size` images."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
    learner = make_learner(config, data.shape, len(data.classes), device)
    images = torch.zeros((size, *data.shape), device=device)
    for _ in range(2):  # the second step needs the optimizer's own tensors too
        learner.step(images, torch.zeros(size, dtype=torch.int64, device=device), 0.0)
    evaluated = min(evaluation_batch(device), len(data.train_labels))
    with torch.no_grad():
        learner.logits(torch.zeros((evaluated, *data.shape), device=device))
