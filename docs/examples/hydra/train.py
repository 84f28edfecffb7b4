"""A program that Hydra configures, as it may stand in anybody's repository: it knows nothing of ablate."""

import hydra
import torch
from omegaconf import DictConfig
from sklearn.datasets import load_digits


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(config: DictConfig) -> None:
    torch.manual_seed(config.seed)
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    held_out = torch.arange(len(images)) % 4 == 0
    net = torch.nn.Sequential(
        torch.nn.Linear(64, config.model.width), torch.nn.ReLU(), torch.nn.Linear(config.model.width, 10)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=config.optimizer.lr)
    for epoch in range(1, config.epochs + 1):
        for batch in (~held_out).nonzero().flatten()[torch.randperm(int((~held_out).sum()))].split(64):
            loss = torch.nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        correct = int((net(images[held_out]).argmax(1) == labels[held_out]).sum())
        print(f"epoch {epoch}: loss {loss.item():.4f}, correct {correct}/{int(held_out.sum())}", flush=True)


main()
