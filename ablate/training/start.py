"""Training by name, without importing torch: what the coordinator hands to an executor."""

from __future__ import annotations

from collections.abc import Generator

from ablate.events import Bundle, Event


def train(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """As `ablate.training.train.train`, imported where it runs."""
    from ablate.training import train as training

    return (yield from training.train(bundle))


def probe(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """As `ablate.training.probe.measure`, imported where it runs."""
    from ablate.training import probe

    return (yield from probe.measure(bundle))


def range_test(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """As `ablate.training.range_test.run`, imported where it runs."""
    from ablate.training import range_test

    return (yield from range_test.run(bundle))
