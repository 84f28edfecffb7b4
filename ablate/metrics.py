"""What is known of a metric by its name: whether more of it is better, and whether it reads the test set.

The only table of its kind: studies and the Python API ask here, so that `val_loss` is minimised wherever it stands.
"""

from __future__ import annotations

import re
from typing import Literal

Direction = Literal["maximize", "minimize"]

DIRECTIONS: tuple[Direction, Direction] = ("maximize", "minimize")

OF_A_RUN = ("test/", "time/", "model/")
"""Beginnings of the names of metrics that belong to a run as a whole."""

JudgedOn = Literal["validation", "test"]
"""The data by which arms are chosen."""

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "eval", "holdout", "test"})
"""Parts of a name that say which data were measured, not what was measured."""

MINIMIZED = frozenset(
    {
        *("loss", "error", "err", "cost", "regret", "perplexity", "ppl", "logloss", "deviance"),
        *("mse", "rmse", "mae", "mape", "smape", "msle", "rmsle", "wape", "nll", "nlpd", "rmsd", "nrmse"),
        *("bce", "crossentropy", "bpc", "bpb", "bpd", "bits_per_character", "bits_per_byte", "bits_per_dim"),
        *(
            "cross_entropy",
            "hinge",
            "brier",
            "brier_score",
            "ece",
            "mce",
            "cer",
            "wer",
            "ter",
            "mer",
            "eer",
            "der",
        ),
        *("fid", "kid", "lpips", "kl", "hausdorff", "chamfer", "epe", "rmsce", "fpr", "fnr"),
        *("squared_error", "absolute_error", "error_rate", "edit_distance", "levenshtein", "latency"),
    }
)

MAXIMIZED = frozenset(
    {
        *(
            "accuracy",
            "acc",
            "precision",
            "recall",
            "sensitivity",
            "specificity",
            "tpr",
            "tnr",
            "kappa",
            "mcc",
        ),
        *("f1", "f2", "fbeta", "f_score", "f1_score", "auc", "auroc", "auprc", "aucpr", "roc_auc", "pr_auc"),
        *("ap", "map", "miou", "iou", "dice", "jaccard", "pq", "hit_rate", "hits", "ndcg", "mrr", "em"),
        *(
            "exact_match",
            "bleu",
            "sacrebleu",
            "rouge",
            "meteor",
            "cider",
            "chrf",
            "comet",
            "bertscore",
            "spice",
        ),
        *("psnr", "ssim", "inception_score", "r2", "spearman", "pearson", "explained_variance", "likelihood"),
        *("reward", "return", "win_rate", "success_rate", "top", "ari", "nmi", "silhouette", "elbo"),
    }
)


def direction(metric: str) -> Direction | None:
    """Return whether more (`maximize`) or less (`minimize`) of a metric is better; None where its name does not say.

    Case and separators do not matter (`val/loss`, `val_loss`, `valLoss`), nor do the split and trailing qualifiers
    (`macro`, `top5`, `@10`). `neg_` turns the meaning round, as in scikit-learn's `neg_mean_squared_error`. A formula
    (`1 - accuracy`) says nothing.
    """
    *_, last = metric.split("/")
    words = [word for word in _words(last) if word not in SPLITS]
    turned = bool(words) and words[0] in {"neg", "negative", "minus"}
    if not turned and (words[:1] == ["one"] or re.match(r"\s*[\d.]*\s*[-−]\s*\w", last)):
        return None
    # The last word is the noun: an `accuracy_loss` is a loss.
    for end in range(len(words), 0, -1):
        parts = [words[start:end] for start in range(max(0, end - 3), end)]
        ending = {joint.join(part) for part in parts for joint in ("_", "")}
        less = bool(ending & MINIMIZED) or words[end - 1].endswith("loss")
        if less or ending & MAXIMIZED:
            return "minimize" if less != turned else "maximize"
    return None


def is_by_epoch(name: str, metric: str | None) -> bool:
    """Return whether a metric belongs to the epochs of a run, and not to the run as a whole. metric: the study's, which does."""
    return name == metric or not name.startswith(OF_A_RUN)


def is_loss(metric: str) -> bool:
    """Return whether a metric is a loss by its name, so that training has diverged where it is no finite number."""
    return metric.lower().endswith("loss")


def reads_test_set(metric: str) -> bool:
    """Return whether a metric's name says that it was measured on the test set: `test/accuracy`, `test_loss`, `testAcc`."""
    return "test" in _words(metric)


def _words(name: str) -> list[str]:
    """Split a name at separators and at changes of case, in lower case; `top5` is `top` and `5`."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    name = re.sub(
        r"\b(top|ap|map|hits|rouge|bleu|precision|recall|pass)[-@]?\d+\b", r"\1", name, flags=re.IGNORECASE
    )
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", name) if word]
