"""A training script written for comparison, the way tutorials write it: DataLoader over PIL images, transforms a sample.

    python benchmarks/tutorial.py FOLDER --model small_cnn --images 5000 --epochs 2

FOLDER holds `train/<class>/*` and `test/<class>/*`. Nothing of `ablate` is used but the network, so that both sides train the
same one. Prints a line of JSON: seconds of training, images a second, test accuracy.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def network(name: str, dropout: float, **settings) -> nn.Module:
    from pydantic import TypeAdapter

    from ablate.models import ModelConfig

    given = {"name": name, "dropout": dropout} | settings
    return TypeAdapter(ModelConfig).validate_python(given).build((3, 32, 32), 10)


def shuffled(dataset, seed: int) -> list[int]:
    return torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()


def train(
    folder: str,
    *,
    model: str = "small_cnn",
    lr: float = 0.05,
    dropout: float = 0.0,
    images: int | None = None,
    validation: int = 1000,
    epochs: int = 2,
    batch_size: int = 128,
    workers: int = 0,
    threads: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    test: bool = True,
    **settings,
) -> dict[str, float]:
    """Train and test once. Seconds are those of the epochs, with the pass over the validation images after each."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    augmented = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *plain.transforms]
    )
    every = datasets.ImageFolder(f"{folder}/train", augmented)
    order = shuffled(every, seed)
    trained = Subset(every, order[validation:][:images])
    held_out = Subset(datasets.ImageFolder(f"{folder}/train", plain), order[:validation])
    loading = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": device != "cpu"}
    batches = DataLoader(trained, batch_size, shuffle=True, **loading)
    checks = DataLoader(held_out, 250, num_workers=0)
    net = network(model, dropout, **settings).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=epochs * len(batches), cycle_momentum=False
    )
    loss_of = nn.CrossEntropyLoss()

    def accuracy(loader: DataLoader) -> float:
        net.eval()
        right = 0
        with torch.no_grad():
            for inputs, labels in loader:
                right += (net(inputs.to(device)).argmax(1).cpu() == labels).sum().item()
        return right / len(loader.dataset)

    began = time.perf_counter()
    running = 0.0
    for _ in range(epochs):
        net.train()
        for inputs, labels in batches:
            optimizer.zero_grad()
            output = net(inputs.to(device))
            loss = loss_of(output, labels.to(device))
            loss.backward()
            optimizer.step()
            schedule.step()
            running += loss.item()
        checked = accuracy(checks)
    seconds = time.perf_counter() - began
    found = {
        "seconds": seconds,
        "images_per_second": epochs * len(trained) / seconds,
        "val_accuracy": checked,
    }
    if test:
        found["test_accuracy"] = accuracy(
            DataLoader(datasets.ImageFolder(f"{folder}/test", plain), 250, num_workers=workers)
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--images", type=int)
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-test", dest="test", action="store_false")
    print(json.dumps(train(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
