"""What a plan knows of the data that an arm trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ablate.text import counted, joined


@dataclass(frozen=True)
class DataFacts:
    """What an arm trains on. fingerprint: digest of the content ('' where training brings its own data, then 0 images).

    train, validation, test: numbers of images. shape: of one image, (channels, height, width). classes: their names. notes: sentences,
    what of the data is not used, or not as it is; data without it are the same data.
    """

    fingerprint: str = ""
    train: int = 0
    validation: int = 0
    test: int = 0
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)


_MOST_NAMED = 3


def notes(data: Mapping[str, DataFacts]) -> tuple[str, ...]:
    """Return what to know of the data of a study's arms, in sentences.

    data: by arm, the reference first. A note that is not of all arms says of which it is.
    """
    arms_by_note: dict[str, list[str]] = {}
    for arm, facts in data.items():
        for note in facts.notes:
            arms_by_note.setdefault(note, []).append(arm)
    sentences = [
        note if len(arms) == len(data) else f"{_listed(arms)}: {note}" for note, arms in arms_by_note.items()
    ]
    reference, *others = data
    known = data[reference].classes
    for arm in others:
        classes = data[arm].classes
        if classes == known or not (known and classes):
            continue
        new, lacking = sorted(set(classes) - set(known)), sorted(set(known) - set(classes))
        differs = [f"{word} {_listed(some)}" for word, some in (("with", new), ("without", lacking)) if some]
        how = f", {joined(differs)}" if differs else " in another order"
        sentences.append(
            f"{arm} has other classes than {reference}{how}: its {counted(len(classes), 'class', 'classes')} are another task"
        )
    return tuple(sentences)


def _listed(names: list[str]) -> str:
    """Write some names, and how many more there are."""
    rest = len(names) - _MOST_NAMED
    return joined(names) if rest <= 0 else f"{', '.join(names[:_MOST_NAMED])} and {rest:,} more"
