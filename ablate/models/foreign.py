"""Networks that are not ablate's own, made reproducible run by run: what they draw comes from the run's own streams."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.weak import WeakTensorKeyDictionary

from ablate.errors import TrainingError
from ablate.models.layers import Dropout

_claimed = WeakTensorKeyDictionary()
"""What runs of this process have trained, as long as anything keeps it."""


def with_own_dropout(model: nn.Module) -> nn.Module:
    """Return a network with ablate's Dropout in place of torch's: the same function, from a generator of its own."""
    if type(model) is nn.Dropout:
        return Dropout(model.p)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
    return model


def claim(model: nn.Module) -> None:
    """Claim what a run changes in its network, weights and running statistics, for that run alone.

    Raises TrainingError where another run of this process has some of it: its builder keeps layers from one call to the next, and
    what one run learns would be in the other.
    """
    changed: list[torch.Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for module in model.modules():
        if isinstance(module, _NormBase):
            changed += module.buffers(recurse=False)
    if any(tensor in _claimed for tensor in changed):
        raise TrainingError(
            "an earlier call returned some of the same layers: two runs in one process would train the same weights",
            place="model.target",
            hint="build every layer anew in each call, without a cache, or train each run in a process of its own with --no-fuse",
        )
    for tensor in changed:
        _claimed[tensor] = True


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch (of the CPU), NumPy and Python for the time being. seed: 63 bits."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002 — what others draw from
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numpy_before)  # noqa: NPY002


_States = tuple[list[torch.Tensor], tuple[Any, ...], Any]


class GlobalDraws:
    """What the global generators of torch, NumPy and Python draw while one run steps: its own stream, whatever other runs draw."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        with self._restoring():
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            self._states = self._now()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Draw from the run's own stream for the time being."""
        with self._restoring():
            self._set(self._states)
            try:
                yield
            finally:
                self._states = self._now()

    def state(self) -> dict[str, Any]:
        """Return where the stream stands, as tensors and plain values."""
        states, (version, words, gauss), numpys = self._states
        return {
            "torch": states,
            "python": [version, list(words), gauss],
            "numpy": [value.tolist() if isinstance(value, np.ndarray) else value for value in numpys],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        version, words, gauss = state["python"]
        kind, key, *rest = state["numpy"]
        self._states = (
            [drawn.cpu() for drawn in state["torch"]],
            (version, tuple(words), gauss),
            (kind, np.array(key, dtype=np.uint32), *rest),
        )

    @contextlib.contextmanager
    def _restoring(self) -> Iterator[None]:
        before = self._now()
        try:
            yield
        finally:
            self._set(before)

    def _now(self) -> _States:
        """Return the states: torch's of the CPU, and of the device where that is another; Python's; NumPy's."""
        states = [torch.get_rng_state()]
        if self._device.type != "cpu":
            states.append(_of(self._device).get_rng_state(*_place(self._device)))
        return states, random.getstate(), np.random.get_state()  # noqa: NPY002 — what others draw from

    def _set(self, all_states: _States) -> None:
        states, pythons, numpys = all_states
        torch.set_rng_state(states[0].cpu())
        for state in states[1:]:
            _of(self._device).set_rng_state(state.cpu(), *_place(self._device))
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002


def _of(device: torch.device) -> Any:
    return torch.get_device_module(device.type)


def _place(device: torch.device) -> tuple[torch.device, ...]:
    """Return the arguments that name a device; Apple's has one device, and takes none."""
    return () if device.type == "mps" else (device,)
