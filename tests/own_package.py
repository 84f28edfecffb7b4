"""A package of the user's own in a temporary folder, with networks and data."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NETS = '''
import copy
import functools
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def build(classes, channels, width=4, dropout=0.0):
    """A plain sequence of layers that torch has, which can be stacked."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * width, classes),
    )


async def awaited(classes):
    return nn.Linear(1, classes)


class Net(nn.Module):
    """As people write them: `view`, dropout from the global generator, layers that are skipped at random, in-place input."""

    def __init__(self, num_classes=10, in_channels=3, size=32, hidden=8):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.fc = nn.Linear(hidden * (size // 2) ** 2, num_classes)

    def forward(self, x):
        x.mul_(0.5)
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = x.view(x.size(0), -1)
        x = F.dropout(x, 0.3, self.training)
        if self.training and torch.rand(()) + random.random() + np.random.rand() < 1.5:
            x = x * 1.1
        return self.fc(x)


def with_heads(classes, channels):
    class Headed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(channels * 64, classes), nn.Linear(channels * 64, classes)

        def forward(self, x):
            x = x.flatten(1)
            return (self.body(x), [self.head(x)]) if self.training else self.body(x)

    return Headed()


def lazy(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


def drawn(classes, channels, size):
    """Initial weights from everywhere."""
    import numpy as np

    layer = nn.Linear(channels * size * size, classes)
    with torch.no_grad():
        layer.weight.add_(random.random()).add_(float(np.random.rand()))
    return nn.Sequential(nn.Flatten(), layer)


def shared(classes, channels):
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(layer, layer, nn.Flatten(), nn.Linear(channels * 64, classes))


kept = functools.cache(Net)
backbone = []
template = []
running = nn.BatchNorm2d(1, affine=False)


def on_backbone(classes, channels):
    """A first layer that is made once."""
    if not backbone:
        backbone.append(nn.Conv2d(channels, 4, 3))
    return nn.Sequential(*backbone, nn.Sigmoid(), nn.Flatten(), nn.Linear(144, classes))


def keeps_statistics(classes, channels):
    return nn.Sequential(running, nn.Flatten(), nn.Linear(channels * 64, classes))


def copied(classes, channels):
    """Made once, and a copy for each run."""
    if not template:
        template.append(with_heads(classes, channels))
    return copy.deepcopy(template[0])


def on_frozen_backbone(classes, channels):
    net = on_backbone(classes, channels)
    net[0].requires_grad_(False)
    return net


def frozen(classes, channels):
    net = build(classes, channels)
    net[0].requires_grad_(False)
    return net


def hooked(classes, channels):
    net = build(classes, channels)
    net[0].register_forward_hook(lambda module, inputs, output: output * 2)
    return net


def normed(classes, channels):
    net = build(classes, channels)
    net[0] = torch.nn.utils.parametrizations.weight_norm(net[0])
    return net


def input_first(classes, channels):
    return nn.Sequential(nn.ReLU(inplace=True), *build(classes, channels))


def tiny(classes, channels):
    """Batch norm on maps of one pixel: it cannot be trained on one image."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 8), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, classes)
    )


def deep(classes, channels):
    """Too deep for small images."""
    convolutions = [nn.Conv2d(channels, channels, 3) for _ in range(6)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(channels, classes))


def lazy_and_deep(classes, channels):
    return nn.Sequential(*deep(classes, channels)[:-1], nn.LazyLinear(classes))


def two_rows(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, classes + 1))


def text(classes):
    return "a network"


def breaks(classes):
    raise RuntimeError("it was told to\\nand says more")


def nothing(classes):
    return nn.Flatten()


def long(x, classes):
    return nn.Linear(1, 1)


def returns_dict(classes, channels):
    class Dicts(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(channels * 64, classes)

        def forward(self, x):
            return {"logits": self.fc(x.flatten(1))}

    return Dicts()


not_callable = 3
'''


@contextlib.contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> Iterator[Path]:
    """Write `my_package` into a folder, and work there. modules: name → source, besides `nets`."""
    package = folder / "my_package"
    package.mkdir(exist_ok=True)
    for name, source in {"__init__": "", "nets": NETS, **modules}.items():
        (package / f"{name}.py").write_text(source)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    _forget()
    yield folder
    _forget()


def _forget() -> None:
    """The modules of the same name belong to another test's folder."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]
