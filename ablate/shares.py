"""Metrics that are a share of something: some write them between 0 and 1, others between 0 and 100."""

from __future__ import annotations

import re

SHARES = frozenset(
    {
        *(
            "accuracy",
            "acc",
            "precision",
            "recall",
            "sensitivity",
            "specificity",
            "f1",
            "auc",
            "auroc",
            "auprc",
            "ap",
        ),
        *(
            "map",
            "miou",
            "iou",
            "dice",
            "jaccard",
            "em",
            "match",
            "rate",
            "tpr",
            "tnr",
            "fpr",
            "fnr",
            "cer",
            "wer",
            "ece",
        ),
        *("top", "hits", "kappa"),
    }
)
"""Last words of names of metrics that are a share of something, and lie between 0 and 1, or 0 and 100."""

GAP_OF_UNITS = 10.0
"""A share and a percentage of the same size differ by a factor of 100; a metric seldom leaps by this one."""


def is_share(metric: str) -> bool:
    """Return whether a metric is a share of something by its name, between 0 and 1, or 0 and 100."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", metric)
    words = re.split(r"[^a-z]+", f"{spaced} {metric}".lower())
    return bool(SHARES & set(words)) and not {"learning", "log", "neg", "lr"} & set(words)
