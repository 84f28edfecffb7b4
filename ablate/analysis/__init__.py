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
from ablate.analysis.examples import ClassChange, Examples, McNemar, examples
from ablate.analysis.family import THE_REST, ArmRule, Term
from ablate.analysis.judging import judge
from ablate.analysis.path import next_step
from ablate.analysis.power import MoreSeeds, Reach, assumed_noise, detectable, reach
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
    "Examples",
    "Look",
    "McNemar",
    "MoreSeeds",
    "Reach",
    "Rules",
    "Runs",
    "Term",
    "assumed_noise",
    "caution",
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
