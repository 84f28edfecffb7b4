"""A GPU of shapes without numbers: what a machine without a GPU can show of code for one.

Tensors on `cuda` are torch's meta tensors that say they are on `cuda:0`; those on the CPU are real. So the code that runs is the code
that would run on a GPU: an operation on tensors of both devices fails, and so does whatever would make the CPU wait for the device
where it may not (as `torch.cuda.set_sync_debug_mode("error")` on a GPU). What is read from the device is zeros.

Not `FakeTensorMode`: without a driver, autograd cannot go back through its cuda tensors (torch 2.15).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ablate.models import foreign
from ablate.training.builtin import learner, randomness

GPU = torch.device("cuda:0")
META = torch.device("meta")
aten = torch.ops.aten

# What they return depends on values: a number, or a tensor whose shape does.
READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
}
INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor}
# Given data of Python's or NumPy's, they copy it to the device and wait.
MAKES = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor}


class Waited(BaseException):
    """The CPU waits for the device where nothing may. No `except Exception` may catch it."""


class MixedDevicesError(RuntimeError):
    """An operation has tensors of both devices."""


class ShapesOnly:
    """The device. may_wait: whether the CPU may wait for it. operations: how many it has been given."""

    def __init__(self) -> None:
        self.may_wait = True
        self.operations = 0

    @contextlib.contextmanager
    def waiting(self, *, allowed: bool) -> Iterator[None]:
        before, self.may_wait = self.may_wait, allowed
        try:
            yield
        finally:
            self.may_wait = before

    def waits(self, what: Any, why: str) -> None:
        if not self.may_wait:
            raise Waited(f"{what} {why}")


class _Names(TorchFunctionMode):
    """Calls by their arguments: what is asked for on `cuda` is made on `meta`, and a meta tensor says that it is on `cuda`."""

    def __init__(self, device: ShapesOnly) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return GPU if args[0].is_meta else func(*args)
        if func == torch.Tensor.is_cuda.__get__:
            return args[0].is_meta
        if func in (torch.Tensor.__repr__, torch.Tensor.__format__) and _is_on_device(args[0]):
            self._device.waits(func, "reads values")
            return "zeros"
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args, kwargs = [_renamed(a) for a in args], {name: _renamed(a) for name, a in (kwargs or {}).items()}
        if func in MAKES and (kwargs.get("device") is META or _is_on_device(args[0])):
            self._device.waits(func, "copies to the device")
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and _is_on_device(args[0]):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in parts):
                self._device.waits(func, "copies an index to the device")
        return func(*args, **kwargs)


def _is_on_device(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_meta


def _renamed(value: Any) -> Any:
    if isinstance(value, torch.device):
        return META if value.type == "cuda" else value
    return META if isinstance(value, str) and value.partition(":")[0] == "cuda" else value


class _Operations(TorchDispatchMode):
    """Operations that have been broken down to those of the devices, backward passes included."""

    def __init__(self, device: ShapesOnly) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Kernels of shapes are written in Python, and name the device as it is.
        with torch._C.DisableTorchFunction():
            return self._done(func, args, kwargs or {})

    def _done(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if tensor.is_meta]
        target = kwargs.get("device")
        if not there and target != META:
            return func(*args, **kwargs)
        self._device.operations += 1
        if func in READS:
            self._device.waits(func, "reads values")
            return _of_zeros(func, args)
        if func is aten._to_copy.default and target is not None:
            return self._moved(func, args[0], target, kwargs)
        if func is aten.copy_.default and len(there) == 1:
            if not args[0].is_meta:
                self._device.waits(func, "copies to the CPU")
                return args[0].zero_()
            # A number of the CPU goes along with the call; an array is copied.
            if args[1].dim() and not (kwargs.get("non_blocking") or any(args[2:])):
                self._device.waits(func, "copies to the device without non_blocking=True")
        elif func in INDEXES:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self._device.waits(func, "reads the values of a mask")
                if func is aten.index.Tensor:
                    return _of_zeros(func, args)
                return args[0]  # nothing is assigned where a mask of zeros is
            if not all(index.is_meta for index in indices):
                self._device.waits(func, "copies an index to the device")
            args = (args[0], [i if i is None else i.to(META) for i in args[1]], *args[2:])
        elif any(tensor.dim() for tensor in tensors if not tensor.is_meta):
            raise MixedDevicesError(f"{func} of {[tuple(t.shape) for t in tensors]}")
        return func(*args, **kwargs)

    def _moved(self, func: Any, tensor: torch.Tensor, target: torch.device, kwargs: dict[str, Any]) -> Any:
        if target == META:
            if not tensor.is_meta and not kwargs.get("non_blocking"):
                self._device.waits(func, "copies to the device without non_blocking=True")
            return func(tensor, **kwargs)
        # Even without waiting: nothing may be done with it before the device has written it.
        self._device.waits(func, "copies to the CPU")
        return torch.zeros(tensor.shape, dtype=kwargs.get("dtype") or tensor.dtype)


def _of_zeros(func: Any, args: Any) -> Any:
    zeros = tree_map(lambda leaf: torch.zeros_like(leaf, device="cpu") if _is_on_device(leaf) else leaf, args)
    return tree_map(lambda leaf: leaf.to(META) if isinstance(leaf, torch.Tensor) else leaf, func(*zeros))


class _Generator(torch.Generator):
    """A generator that says it is on the device."""

    device = GPU


@contextlib.contextmanager
def shapes_only() -> Iterator[ShapesOnly]:
    """Make `cuda` a device of shapes for the time being."""
    on_cpu = randomness.generator

    def generator(
        seed: int, source: randomness.Source, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        if torch.device(device).type == "cpu":
            return on_cpu(seed, source)
        made = _Generator()
        made.manual_seed(randomness.derive(seed, source))
        return made

    device = ShapesOnly()
    with pytest.MonkeyPatch.context() as patch:
        for module in (randomness, learner):
            patch.setattr(module, "generator", generator)
        # The state of a GPU's generators lies with the CPU.
        patch.setattr(foreign, "_of", lambda _: torch)
        patch.setattr(foreign, "_place", lambda _: ())
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        with _Operations(device), _Names(device):
            yield device
