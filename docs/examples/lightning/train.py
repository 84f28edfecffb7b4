"""A PyTorch Lightning program, as it may stand in anybody's repository: it knows nothing of ablate."""

import argparse

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split


class Digits(lightning.LightningModule):
    def __init__(self, width: int, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)
        )

    def training_step(self, batch, _index):
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, _index):
        self.log("val_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--width", type=int, default=32)
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", default="logs")
args = parser.parse_args()

lightning.seed_everything(args.seed)
digits = load_digits()
data = TensorDataset(torch.tensor(digits.data / 16).float(), torch.tensor(digits.target))
train, validation = random_split(data, [0.75, 0.25], torch.Generator().manual_seed(0))
trainer = lightning.Trainer(
    max_epochs=args.epochs,
    accelerator="auto",
    logger=CSVLogger(args.out, name="", version=""),
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(Digits(args.width, args.lr), DataLoader(train, 64, shuffle=True), DataLoader(validation, 256))
