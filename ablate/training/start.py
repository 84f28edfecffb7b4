"""What measures, by name and without importing torch: what the coordinator hands to an executor beside `runs.train`."""

from __future__ import annotations

from collections.abc import Generator

from ablate.events import Bundle, Event


def probe(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """As `ablate.training.probe.measure`, imported where it runs."""
    from ablate.training import probe

    return (yield from probe.measure(bundle))


def range_test(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """As `ablate.training.range_test.run`, imported where it runs."""
    from ablate.training import range_test

    return (yield from range_test.run(bundle))
