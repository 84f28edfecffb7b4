"""Verdicts from frames: pandas in, frozen dataclasses out. Nothing here trains, stores or draws."""

from ablate.analysis.diagnosis import Diagnosis
from ablate.analysis.examples import ClassChange, Examples, McNemar, examples
from ablate.analysis.path import next_step
from ablate.analysis.power import MoreSeeds, Reach, assumed_noise, detectable, reach
from ablate.analysis.rules import ArmRule, Look, Rules
from ablate.analysis.verdict import (
    Analysis,
    Comparison,
    Effect,
    Runs,
    Summary,
    judge,
    to_json,
    undecided,
    winner,
)
from ablate.analysis.words import headline, label, sentence

__all__ = [
    "Analysis",
    "ArmRule",
    "ClassChange",
    "Comparison",
    "Diagnosis",
    "Effect",
    "Examples",
    "Look",
    "McNemar",
    "MoreSeeds",
    "Reach",
    "Rules",
    "Runs",
    "Summary",
    "assumed_noise",
    "detectable",
    "examples",
    "headline",
    "judge",
    "label",
    "next_step",
    "reach",
    "sentence",
    "to_json",
    "undecided",
    "winner",
]
