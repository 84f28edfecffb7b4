"""Verdicts from frames: pandas in, frozen dataclasses out. Nothing in it trains, stores or draws."""

from ablate.analysis.contents import (
    Analysis,
    ArmSummary,
    Caution,
    Comparison,
    Effect,
    Runs,
    undecided,
    winner,
)
from ablate.analysis.diagnosis import Diagnosis
from ablate.analysis.family import THE_REST, ArmRule, Term
from ablate.analysis.judging import judge
from ablate.analysis.path import next_step
from ablate.analysis.power import MoreSeeds, Reach, assumed_noise, detectable, reach
from ablate.analysis.prediction_changes import ClassChange, McNemar, PredictionChanges, prediction_changes
from ablate.analysis.rules import Look, Rules
from ablate.analysis.verdict_json import to_json
from ablate.analysis.words import caution, headline, label, sentence

__all__ = [
    "THE_REST",
    "Analysis",
    "ArmRule",
    "ArmSummary",
    "Caution",
    "ClassChange",
    "Comparison",
    "Diagnosis",
    "Effect",
    "Look",
    "McNemar",
    "MoreSeeds",
    "PredictionChanges",
    "Reach",
    "Rules",
    "Runs",
    "Term",
    "assumed_noise",
    "caution",
    "detectable",
    "headline",
    "judge",
    "label",
    "next_step",
    "prediction_changes",
    "reach",
    "sentence",
    "to_json",
    "undecided",
    "winner",
]
