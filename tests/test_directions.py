"""Whether more of a metric is better, by its name."""

import pytest

from ablate.metrics import direction

MINIMIZED = """
    loss val/loss val_loss valLoss VAL-LOSS val.loss val/focal_loss myloss dice_loss accuracy_loss error err top5_error error_rate
    word_error_rate MSE val/rmse mae mean_squared_error nll negative_log_likelihood neg_log_likelihood cross_entropy ppl perplexity
    bpc bits_per_byte bits_per_character wer CER fid FID lpips ece brier_score
"""
MAXIMIZED = """
    accuracy val/accuracy valid_accuracy val-accuracy Accuracy acc@1 top5_accuracy val/top-5-accuracy test/f1_macro f1 F1Score
    precision_macro recall@10 roc_auc AUC bleu val.bleu-4 rouge-1 iou mIoU mAP mAP@50 ap50 dice r2 log_likelihood
    neg_mean_squared_error neg_loss reward
"""
UNKNOWN = "score val/score my_metric 1-accuracy 1−acc one_minus_accuracy x val/ glosses lossy"


@pytest.mark.parametrize("metric", MINIMIZED.split())
def test_less_is_better_of_losses_errors_and_distances(metric):
    assert direction(metric) == "minimize"


@pytest.mark.parametrize("metric", MAXIMIZED.split())
def test_more_is_better_of_accuracies_scores_and_negated_losses(metric):
    assert direction(metric) == "maximize"


@pytest.mark.parametrize("metric", ["", *UNKNOWN.split()])
def test_a_name_that_does_not_say_is_not_guessed(metric):
    assert direction(metric) is None
