"""What is known of a metric by its name: whether more of it is better, and whether it reads the test set.

The only table of its kind: studies and the Python API ask here, so that `val_loss` is minimised wherever it stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
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
        *("mase", "mpjpe", "crps"),
        *("bce", "xent", "crossentropy", "cross_entropy", "bpc", "bpb", "bpd"),
        *("bits_per_character", "bits_per_char", "bits_per_byte", "bits_per_dim", "nats_per_token"),
        *("hinge", "huber", "brier", "brier_score", "ece", "mce", "cer", "wer", "ter", "eer"),
        *("der", "match_error_rate"),
        *("fid", "kid", "lpips", "kl", "kld", "kl_div", "kl_divergence", "hausdorff", "chamfer", "epe"),
        *("rmsce", "fpr", "fnr"),
        *("false_positive_rate", "false_negative_rate", "miss_rate", "misclassification"),
        *("misclassification_rate", "hausdorff_distance", "chamfer_distance"),
        *("squared_error", "absolute_error", "error_rate", "edit_distance", "levenshtein", "latency"),
    }
)

MAXIMIZED = frozenset(
    {
        *("accuracy", "acc", "precision", "recall", "sensitivity", "specificity", "tpr", "tnr"),
        *("true_positive_rate", "true_negative_rate", "kappa", "mcc", "matthews_corrcoef"),
        *("f1", "f2", "fbeta", "f_score", "f1_score", "auc", "auroc", "auprc", "aucpr", "aupr"),
        *("roc_auc", "auc_roc", "auc_pr", "pr_auc"),
        *("ap", "map", "miou", "iou", "dice", "jaccard", "panoptic_quality", "hit_rate", "ndcg", "mrr", "em"),
        *("exact_match", "bleu", "sacrebleu", "rouge", "meteor", "cider", "chrf", "comet"),
        *("bertscore", "spice"),
        *("psnr", "ssim", "inception_score", "r2", "r_squared", "spearman", "spearmanr", "pearson"),
        *("pearsonr", "pearson_corr_coef", "spearman_corr_coef", "jaccard_index"),
        *("mota", "idf1", "hota", "pesq", "stoi", "si_sdr", "adjusted_rand", "v_measure"),
        *("explained_variance", "likelihood", "throughput", "fps"),
        *("reward", "rew", "return", "win_rate", "success_rate", "ari", "nmi", "silhouette"),
    }
)

AT_A_NUMBER = frozenset({"top", "hits"})
"""What is maximized where a number follows: `top5`, `hits@10`; `top_k` may be a setting, and `hits` a count."""

HEADS = frozenset({"loss", "error", "err", "error_rate", "miss_rate"})
"""What stays to be minimized whatever it is a loss or an error of: `accuracy_loss`, `auc_error`."""

TURNED = frozenset({"neg", "negative", "minus"})
"""First words of a name that turn its meaning round."""

TURNED_SCORES = frozenset({"likelihood", "reward", "rew", "return"})
"""Scores whose negative is minimized. That of any other may be its value for the negative class: `negative_recall`."""

QUALIFIERS = frozenset(
    {
        *("macro", "micro", "weighted", "binary", "samples", "ovr", "ovo", "mean", "avg", "average"),
        *("median", "sum", "lsum"),
        *("best", "final", "last", "max", "min", "overall", "total", "all", "clean", "other", "ema"),
        *("raw", "norm"),
        *("normalized", "score", "rate", "pct", "percent", "percentage", "epoch", "step", "small"),
        *("medium", "large"),
    }
)
"""Words behind what was measured that leave its direction as it is; single letters and numbers do too."""

UNITS = frozenset({"ms", "us", "ns", "sec", "secs", "second", "seconds", "millis", "milliseconds", "p"})
"""Units and percentiles of a latency."""

OTHER_QUANTITIES = frozenset(
    {
        *("std", "stdev", "stddev", "sd", "var", "variance", "stderr", "sem", "ci", "uncertainty", "spread"),
        *("gap", "decrease", "increase", "reduction", "improvement", "delta", "diff", "difference", "ratio"),
        *(
            "correct",
            "win",
            "wins",
            "profit",
            "gain",
            "weight",
            "fat",
            "stop",
            "tax",
        ),  # profit_and_loss, tax_return
        *(
            "numeric",
            "numerical",
            "float",
            "floating",
            "matmul",
            "d2",
        ),  # numeric_precision, scikit-learn's d2_absolute_error_score
        *("inverse", "inv", "reciprocal", "minus", "not", "non", "no", "without"),
        *("saved", "avoided", "drop", "dropped", "lost", "degradation", "change"),
        # What an attacker reaches, or what is to be unlearnt, the defender wants less of.
        *("attack", "attacker", "backdoor", "trojan", "poison", "poisoned", "jailbreak", "mia", "membership"),
        *("forget", "forgetting", "unlearn", "unlearned"),
    }
)
"""Words before what was measured that make another quantity of it, which its direction does not hold for: `std_accuracy`."""

BITS = frozenset({"8", "16", "32", "64"})
"""Numbers behind `precision` that may be a width in bits: `precision_16`."""

LINKS = frozenset({"to", "until", "per", "in", "of", "vs", "over"})
"""Words right before what was measured that do the same: `steps_to_accuracy`, unlike `speech_to_text_wer`."""


def direction(metric: str) -> Direction | None:
    """Return whether more (`maximize`) or less (`minimize`) of a metric is better; None where its name does not say.

    Case and separators do not matter (`val/loss`, `val_loss`, `valLoss`), nor do the split, what stands before the measure
    (`robust_accuracy`) and known qualifiers behind it (`macro`, `top5`, `@10`). `neg_` turns the meaning round, as in
    scikit-learn's `neg_mean_squared_error`. A formula (`1 - accuracy`) and another quantity (`accuracy_std`, `steps_to_accuracy`)
    say nothing: a direction that is asked for costs a line, one that is guessed wrongly turns every verdict round.
    """
    if re.search(_FORMULA, metric):
        return None
    sections, words = _measured(re.sub(_FILTER, "", metric))
    if OTHER_QUANTITIES & set(sections):  # win/loss, std/accuracy
        return None
    first = next((at for at, word in enumerate(words) if word not in QUALIFIERS), 0)
    turned = words[first : first + 1] and words[first] in TURNED  # best_neg_loss
    if turned:
        words = words[first + 1 :]
    for end in range(len(words), 0, -1):
        phrase = _phrase(words, end)
        if phrase is None:
            continue
        name, start = phrase
        minimized = name not in MAXIMIZED | AT_A_NUMBER
        before, after = words[:start], words[end:]
        if name in AT_A_NUMBER and not (after and after[0].isdigit()):
            return None
        if name == "precision" and after[:1] and after[0] in BITS:
            return None
        units = UNITS if name == "latency" else frozenset()
        if OTHER_QUANTITIES & set(before) or not all(_is_qualifier(word, units) for word in after):
            return None
        nearest_word = next((word for word in reversed(before) if not _is_qualifier(word, units)), "")
        if nearest_word in LINKS:
            return None
        if _is_contradicted(name, before):
            return None
        if not turned:
            return "minimize" if minimized else "maximize"
        if minimized:
            return "maximize"
        return "minimize" if name in TURNED_SCORES else None
    return None


def _is_contradicted(name: str, before: list[str]) -> bool:
    """Return whether a word before what was measured names something that is better the other way: `loss_accuracy`."""
    if name in MAXIMIZED | AT_A_NUMBER:
        return any(word in MINIMIZED or word.endswith("loss") for word in before)
    if name.endswith("loss"):
        # Glued together it is one word: winloss, stoploss, neglogloss. The losses of the best, or the largest losses: top_loss.
        stem = name.removesuffix("loss")
        return stem in OTHER_QUANTITIES | AT_A_NUMBER or stem.startswith("neg") or "top" in before
    # An error or a loss is one whatever it is of.
    return name not in HEADS and any(word in MAXIMIZED for word in before)


# Patterns are text, as in `text`.
_FORMULA = (
    r"(?i)(^|[\s(_/])\d[\d.]*\s*[-−–/]\s*[A-Za-z]"  # 1-f1, val/1-f1, 1/accuracy
    r"|^\s*[-−–]|[*=<>]"  # -loss, 100*accuracy
    r"|(^|[^A-Za-z])one[\s_-]+minus"
)


_FILTER = r",[\w-]+$"
"""What lm-evaluation-harness adds to a name: the filter of the answers, as in `acc,none`."""


def _measured(metric: str) -> tuple[list[str], list[str]]:
    """Return the words that say what was measured, after those of the parts between slashes that stand before it.

    They are those of the last part that says more than on which data (`loss/val`).
    """
    parts = [[word for word in _words(part) if word not in SPLITS] for part in metric.split("/")]
    for last in range(len(parts) - 1, -1, -1):
        if any(not word.isdigit() for word in parts[last]):
            return [word for part in parts[:last] for word in part], parts[last]
    return [], []


def _phrase(words: list[str], end: int) -> tuple[str, int] | None:
    """Return the longest name of the tables that ends before `end`, of three words at most, and the place of its first word."""
    for start in range(max(0, end - 3), end):
        if name := _NAMES.get("".join(words[start:end])):
            return name, start
    return (words[end - 1], end - 1) if words[end - 1].endswith("loss") else None


_NAMES = {name.replace("_", ""): name for name in MINIMIZED | MAXIMIZED | AT_A_NUMBER}
"""Names of the tables without separators, as they are looked up, → names."""


def _is_qualifier(word: str, units: frozenset[str]) -> bool:
    return (
        word in QUALIFIERS
        or word in units
        or len(word) == 1
        or word[0].isdigit()
        or bool(units and re.fullmatch(r"p\d+", word))
    )


def is_by_epoch(name: str, metric: str | None) -> bool:
    """Return whether a metric belongs to the epochs of a run, and not to the run as a whole. metric: the study's, which does."""
    return name == metric or not name.startswith(OF_A_RUN)


def is_loss(metric: str) -> bool:
    """Return whether a metric is a loss by its name, so that training has diverged where it is no finite number."""
    return _measured(metric)[1][-1:] == ["loss"] or metric.lower().endswith("loss")


def words_of_split(text: str) -> frozenset[str]:
    """Return the words of a text that say which data were measured."""
    return SPLITS.intersection(_words(text))


def reads_test_set(metric: str) -> bool:
    """Return whether a metric's name says that it was measured on the test set: `test/accuracy`, `test_loss`, `testAcc`."""
    return "test" in _words(metric)


_NUMBERED = r"(top|ap|map|acc|err|error|hits?|rouge|bleu|precision|recall|pass|fpr|hd|fid)(\d+)([a-z]*)"


def _words(name: str) -> list[str]:
    """Split a name at separators and at changes of case, in lower case; `top5` is `top` and `5`."""
    name = re.sub(r"([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z]{2})", r"\1\3 \2\4", name)
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    numbered = (re.fullmatch(_NUMBERED, word) for word in words)
    return [
        part
        for word, match in zip(words, numbered, strict=True)
        for part in ([word] if match is None else match.groups())
        if part
    ]


Split = Literal["train", "validation", ""]

_SPLIT_OF: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "validation"),
}


def split_of(metric: str) -> tuple[Split, str]:
    """Return the data that a metric was measured on, as far as its name says, and what was measured.

    `val/loss`, `valid_loss` and `loss.val` are the loss on validation data; `loss` and `test/loss` are a quantity of their own.
    """
    for pattern in (r"(?P<split>[^/_.-]+)[/_.-](?P<rest>.+)", r"(?P<rest>.+)[/_.-](?P<split>[^/_.-]+)"):
        match = re.fullmatch(pattern, metric)
        if match and (split := _SPLIT_OF.get(match["split"].lower())):
            return split, match["rest"]
    return "", metric


def splits_of(metrics: Iterable[str]) -> dict[str, tuple[Split, str]]:
    """Return `split_of` for metrics that are recorded together: `loss` beside `val_loss` and no `train_loss` is that of training."""
    known = {metric: split_of(metric) for metric in metrics}
    both = set(known.values())
    return {
        metric: ("train", quantity)
        if not split and ("validation", quantity) in both and ("train", quantity) not in both
        else (split, quantity)
        for metric, (split, quantity) in known.items()
    }


def is_beyond_shares(margin: float, values: Iterable[float]) -> bool:
    """Return whether there are finite values, all in [0, 1], so that no two of them could differ by more than this margin: at least 1."""
    if margin < 1:
        return False
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and all(0 <= value <= 1 for value in finite)
