"""Verdicts from frames: pandas in, frozen dataclasses out. Nothing in it trains, stores or draws."""

from ablate.analysis.blocks import judge_blocks, over_blocks
from ablate.analysis.contents import (
    Analysis,
    ArmSummary,
    BlockedAnalysis,
    Caution,
    Comparison,
    Effect,
    Runs,
    undecided,
    winner,
)
from ablate.analysis.diagnosis import Diagnosis
from ablate.analysis.family import THE_REST, ArmRule, Term
from ablate.analysis.groups import Group
from ablate.analysis.judging import judge
from ablate.analysis.path import next_step
from ablate.analysis.power import MoreSeeds, Reach, assumed_noise, detectable, reach
from ablate.analysis.prediction_changes import ClassChange, McNemar, PredictionChanges, prediction_changes
from ablate.analysis.rules import Look, Rules
from ablate.analysis.unpaired import judge_groups, seed_spread
from ablate.analysis.verdict_json import blocks_to_json, to_json
from ablate.analysis.words import caution, headline, label, sentence

__all__ = [
    "THE_REST",
    "Analysis",
    "ArmRule",
    "ArmSummary",
    "BlockedAnalysis",
    "Caution",
    "ClassChange",
    "Comparison",
    "Diagnosis",
    "Effect",
    "Group",
    "Look",
    "McNemar",
    "MoreSeeds",
    "PredictionChanges",
    "Reach",
    "Rules",
    "Runs",
    "Term",
    "assumed_noise",
    "blocks_to_json",
    "caution",
    "detectable",
    "headline",
    "judge",
    "judge_blocks",
    "judge_groups",
    "label",
    "next_step",
    "over_blocks",
    "prediction_changes",
    "reach",
    "seed_spread",
    "sentence",
    "to_json",
    "undecided",
    "winner",
]
