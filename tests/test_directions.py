"""Whether more of a metric is better, by its name."""

import itertools
import random
import re

import pytest

from ablate.analysis.rules import ArmRule, Rules
from ablate.errors import StudyError
from ablate.metrics import MAXIMIZED, MINIMIZED, direction, is_loss, split_of, splits_of
from ablate.study.spec import parse

LESS = """
    loss val/loss val_loss valLoss VAL-LOSS val.loss val/focal_loss myloss dice_loss accuracy_loss error err top5_error error_rate
    word_error_rate MSE val/rmse mae mean_squared_error nll negative_log_likelihood neg_log_likelihood cross_entropy ppl perplexity
    bpc bits_per_byte bits_per_character wer CER fid FID lpips ece brier_score Loss/val loss_val top1err val/top-5-error latency_ms
    p99_latency_ms latency_p99 error(%) speech_to_text_wer zero_one_loss rmse/validation false_positive_rate fpr95 negative_reward
"""
MORE = """
    accuracy val/accuracy valid_accuracy val-accuracy Accuracy acc@1 acc1 top5_accuracy val/top-5-accuracy test/f1_macro f1 F1Score
    precision_macro recall@10 roc_auc AUC AUROC auc_roc bleu val.bleu-4 rouge-1 rougeLsum iou mIoU mAP mAP@50 mAP_50-95 ap50 dice r2
    log_likelihood neg_mean_squared_error neg_loss reward ep_rew_mean mean_per_class_accuracy rank_1_accuracy Accuracy/train
"""
UNKNOWN = """
    score val/score my_metric x val/ glosses lossy lossless inaccuracy
    1-accuracy 1−acc one_minus_accuracy val/1-f1 val_1-f1 100-wer 1/accuracy 100*(1-acc) -loss
    accuracy_std std_acc accuracy_gap acc_drop steps_to_accuracy steps_to_90_accuracy accuracy_time val_accuracy_ms inverse_rmse
    error_reduction loss_weight error_free_rate acc_minus_err cost_per_accuracy acc_norm_stderr
    loss_accuracy loss_iou regret_reward error_detection_f1
    negative_recall neg_f1 accuracy_deficit
    attack_success_rate backdoor_acc mia_auc membership_inference_auc forget_acc jailbreak_success_rate
    saved_cost avoided_loss drop_accuracy lost_accuracy change_accuracy
"""


@pytest.mark.parametrize("metric", LESS.split())
def test_less_is_better_of_losses_errors_and_distances(metric):
    assert direction(metric) == "minimize"


@pytest.mark.parametrize("metric", MORE.split())
def test_more_is_better_of_accuracies_scores_and_negated_losses(metric):
    assert direction(metric) == "maximize"


@pytest.mark.parametrize("metric", ["", *UNKNOWN.split()])
def test_a_name_that_does_not_say_is_not_guessed(metric):
    assert direction(metric) is None


KNOWN = [(name, "minimize") for name in sorted(MINIMIZED)] + [
    (name, "maximize") for name in sorted(MAXIMIZED)
]


def test_case_separators_splits_and_qualifiers_do_not_change_a_direction():
    draw = random.Random(0)
    before = ["", "val/", "val_", "test-", "eval.", "train ", "dev:", "my_", "mean_", "ResNet/"]
    after = ["", "/val", "_macro", "@10", "_mean", " (%)", "_1", "/validation", "_best"]
    cases = [
        str,
        str.upper,
        str.title,
        lambda name: name.replace("_", "-"),
        lambda name: name.replace("_", ""),
    ]
    for name, better in KNOWN:
        for start, end, case in draw.sample(list(itertools.product(before, after, cases)), 40):
            metric = f"{start}{case(name)}{end}"
            assert direction(metric) == better, metric


@pytest.mark.parametrize(
    "pattern",
    ["1-{}", "val/1-{}", "one_minus_{}", "100 - {}", "1/{}", "{}*-1", "-{}", "{}_std", "std_{}", "{}_gap", "steps_to_{}", "{}_weight",
     "inverse_{}", "{}_reduction", "time_per_{}", "{}_ratio", "{}_minus_baseline", "{}_wibble"],
)  # fmt: skip
def test_what_is_made_of_a_known_metric_has_no_direction_by_its_name(pattern):
    for name, _ in KNOWN:
        assert direction(pattern.format(name)) is None, pattern.format(name)


def test_a_negated_metric_is_never_what_it_was():
    for (name, better), sign in itertools.product(KNOWN, ("neg_", "val/neg_", "negative-", "eval_minus_")):
        assert direction(sign + name) != better, sign + name


DOCUMENTED_MORE = [
    "MulticlassAccuracy",
    "balanced_accuracy",
    "top_k_accuracy",
    "top5",
    "acc@5",
    "acc_norm",
    "acc,none",
    "exact_match,strict-match",
    "BinaryF1Score",
    "FBetaScore",
    "fbeta_score",
    "MulticlassAUROC",
    "roc_auc_score",
    "AveragePrecision",
    "average_precision",
    "JaccardIndex",
    "jaccard_score",
    "CohenKappa",
    "cohen_kappa",
    "MatthewsCorrCoef",
    "matthews_corrcoef",
    "Specificity",
    "r2_score",
    "R2Score",
    "explained_variance_score",
    "PearsonCorrCoef",
    "SpearmanCorrCoef",
    "KendallRankCorrCoef",
    "kendall_tau",
    "BLEUScore",
    "SacreBLEUScore",
    "bleu_score",
    "CHRFScore",
    "rouge1_fmeasure",
    "rougeLsum",
    "bertscore",
    "PeakSignalNoiseRatio",
    "psnr",
    "ms_ssim",
    "StructuralSimilarityIndexMeasure",
    "InceptionScore",
    "CLIPScore",
    "si_sdr",
    "ScaleInvariantSignalDistortionRatio",
    "SignalNoiseRatio",
    "pesq",
    "stoi",
    "RetrievalMRR",
    "RetrievalMAP",
    "RetrievalNormalizedDCG",
    "nDCG@10",
    "ndcg_at_10",
    "map_at_k",
    "mrr@10",
    "recall@k",
    "hits@10",
    "hit_rate",
    "adjusted_rand_score",
    "NormalizedMutualInfoScore",
    "homogeneity_score",
    "v_measure_score",
    "fowlkes_mallows_score",
    "silhouette_score",
    "calinski_harabasz_score",
    "bbox_mAP",
    "bbox_mAP_50",
    "segm_mAP",
    "AP50",
    "APl",
    "AR@100",
    "mAP@0.5:0.95",
    "PanopticQuality",
    "mIoU",
    "DiceScore",
    "MOTA",
    "IDF1",
    "HOTA",
    "NDS",
    "mean_reward",
    "rollout/ep_rew_mean",
    "episode_reward_mean",
    "eval/mean_reward",
    "success_rate",
    "win_rate",
    "pass@1",
    "pass_at_10",
    "mc2",
    "MOS",
    "throughput",
    "tokens_per_sec",
    "images/sec",
    "fps",
    "sparse_categorical_accuracy",
    "mean_token_accuracy",
    "neg_mean_squared_error",
    "neg_log_loss",
    "neg_brier_score",
    "d2_absolute_error_score",
    "d2_log_loss_score",
    "d2_pinball_score",
]
DOCUMENTED_LESS = [
    "log_loss",
    "HingeLoss",
    "MeanSquaredError",
    "mean_absolute_percentage_error",
    "SymmetricMeanAbsolutePercentageError",
    "MeanSquaredLogError",
    "median_absolute_error",
    "max_error",
    "root_mean_squared_error",
    "LogCoshError",
    "MinkowskiDistance",
    "mean_pinball_loss",
    "mean_poisson_deviance",
    "Perplexity",
    "word_perplexity,none",
    "byte_perplexity",
    "bits_per_byte,none",
    "WordErrorRate",
    "CharErrorRate",
    "MatchErrorRate",
    "WordInfoLost",
    "TranslationEditRate",
    "EditDistance",
    "FrechetInceptionDistance",
    "KernelInceptionDistance",
    "lpips",
    "KLDivergence",
    "HausdorffDistance",
    "hd95",
    "assd",
    "ergas",
    "SpectralAngleMapper",
    "TotalVariation",
    "ExpectedCalibrationError",
    "brier_score_loss",
    "HammingDistance",
    "hamming_loss",
    "zero_one_loss",
    "coverage_error",
    "label_ranking_loss",
    "DaviesBouldinScore",
    "EER",
    "minDCF",
    "DER",
    "JER",
    "approx_kl",
    "policy_gradient_loss",
    "value_loss",
    "td_error",
    "regret",
    "latency",
    "inference_time_ms",
    "time_to_first_token",
    "mpjpe",
    "PA-MPJPE",
    "ADE",
    "minFDE",
    "EPE",
    "AbsRel",
    "sq_rel",
    "RMSElog",
    "silog",
    "mean_corruption_error",
    "fpr@95",
    "wer",
    "cer",
    "fid",
    "loss_bbox",
    "loss_cls",
    "rpn_loss_cls",
]
"""Metrics of torchmetrics, scikit-learn, lm-evaluation-harness, COCO, MLPerf, speech and reinforcement learning, as documented there."""

AMBIGUOUS = [
    "winloss",
    "win/loss",
    "win-loss",
    "gain/loss",
    "profit_loss",
    "weight_loss",
    "stop_loss",
    "top_k",
    "top",
    "topk",
    "hits",
    "mer",
    "pq",
    "elbo",
    "top_loss",
    "top1_loss",
    "top5-loss",
    "neglogloss",
    "std/accuracy",
    "delta/loss",
    "numeric_precision",
    "precision_16",
    "precision-32",
    "float_precision",
    "tax_return",
    "bleu_brevity_penalty",
    "mutual_info",
    "entropy",
    "lr",
    "grad_norm",
    "ep_len_mean",
    "loss_scale",
]


def spellings(name: str) -> set[str]:
    """Return a name as other people write it."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1_\2", name)
    words = {
        name,
        apart,
        name.replace("_", "-"),
        name.replace("_", ""),
        name.replace("_", " "),
        name.replace("_", "."),
    }
    cased = {each for word in words for each in (word, word.lower(), word.upper(), word.title())}
    return {before + word for word in cased for before in ("", "val/", "test_", "eval-", "valid/best_")}


@pytest.mark.parametrize(
    ("names", "wrong", "right"),
    [(DOCUMENTED_MORE, "minimize", "maximize"), (DOCUMENTED_LESS, "maximize", "minimize")],
)
def test_no_metric_of_a_known_package_is_taken_the_wrong_way_round(names, wrong, right):
    assert [each for name in names for each in spellings(name) if direction(each) == wrong] == []
    assert sum(direction(name) == right for name in names) > len(names) / 2


def test_names_that_mean_several_things_require_a_direction():
    assert [
        (each, direction(each)) for name in AMBIGUOUS for each in spellings(name) if direction(each)
    ] == []


OWN = "study: s\nmargin: 0.01\ntrain: own:train\nbaseline: {gain: 0}\nfactors: {gain: [1]}\nseeds: 3\n"


@pytest.mark.parametrize("metric", [name for name in UNKNOWN.split() if not set(name) & set("−*()")])
def test_a_study_must_say_the_direction_that_a_name_does_not(metric):
    with pytest.raises(StudyError, match="does not say whether more of it is better"):
        parse(f"{OWN}metric: '{metric}'\n")
    assert parse(f"{OWN}metric: '{metric}'\ndirection: minimize\n").direction == "minimize"


@pytest.mark.parametrize(
    ("metric", "better"), [("val/RMSE", "minimize"), ("Top5-Error", "minimize"), ("mAP-50", "maximize")]
)
def test_a_study_takes_the_direction_that_a_name_says(metric, better):
    assert parse(f"{OWN}metric: {metric}\n").direction == better


@pytest.mark.parametrize(
    "metric", ["val/loss", "train_loss", "valLoss", "Loss/train", "loss_val", "focalloss"]
)
def test_a_loss_is_one_wherever_its_name_says_it(metric):
    assert is_loss(metric)


@pytest.mark.parametrize("metric", ["val/auc", "loss_weight", "lossless", "val/nll", "epoch"])
def test_nothing_else_is_a_loss(metric):
    assert not is_loss(metric)


def test_a_direction_against_the_name_of_a_metric_is_noted():
    def rules(metric: str, direction: str | None) -> Rules:
        return Rules(metric=metric, margin=0.1, looks=(3,), arms=(ArmRule("b"),), direction=direction)

    assert rules("val/rmse", "maximize").is_against_its_name
    assert not rules("val/rmse", None).is_against_its_name
    assert not rules("val/surprise", "minimize").is_against_its_name


@pytest.mark.parametrize(
    ("metric", "split", "quantity"),
    [
        ("train/loss", "train", "loss"),
        ("train_loss", "train", "loss"),
        ("loss.train", "train", "loss"),
        ("val/loss", "validation", "loss"),
        ("Valid_loss", "validation", "loss"),
        ("eval-top5_accuracy", "validation", "top5_accuracy"),
        ("accuracy_dev", "validation", "accuracy"),
        ("loss", "", "loss"),
        ("test/loss", "", "test/loss"),
        ("validity", "", "validity"),
        ("trained/steps", "", "trained/steps"),
        ("val", "", "val"),
    ],
)
def test_a_name_says_which_data_were_measured_and_what(metric, split, quantity):
    assert split_of(metric) == (split, quantity)


def test_a_bare_name_is_that_of_training_only_beside_validation_and_without_a_training_twin():
    assert splits_of(["loss", "val_loss"])["loss"] == ("train", "loss")
    assert splits_of(["loss", "val/loss", "train/loss"])["loss"] == ("", "loss")
    assert splits_of(["loss", "accuracy"])["loss"] == ("", "loss")
