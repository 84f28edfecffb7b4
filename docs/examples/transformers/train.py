"""A program around the Hugging Face `Trainer`, as it may stand in anybody's repository: it knows nothing of ablate."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import HfArgumentParser, Trainer, TrainingArguments, set_seed


class Digits(Dataset):
    def __init__(self, held_out: bool) -> None:
        digits = load_digits()
        chosen = [i for i in range(len(digits.target)) if (i % 4 == 0) == held_out]
        self.images, self.labels = (
            torch.tensor(digits.data[chosen] / 16).float(),
            torch.tensor(digits.target[chosen]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return {"x": self.images[index], "labels": self.labels[index]}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


(arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
set_seed(arguments.seed)
trainer = Trainer(
    Net(),
    arguments,
    train_dataset=Digits(held_out=False),
    eval_dataset=Digits(held_out=True),
    compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(1) == p.label_ids).mean())},
)
trainer.train()
