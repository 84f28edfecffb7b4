"""Searches through MLflow's client: page by page, and in MLflow's grammar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

PAGE = 1000
"""Experiments or runs per request to a server."""


def matching_runs(mlflow: Any, experiment_ids: Sequence[str], condition: str) -> Iterator[Any]:
    """Yield MLflow's own objects of the active runs of some experiments that meet a condition, page by page."""
    return pages(
        lambda token: mlflow.search_runs(list(experiment_ids), condition, max_results=PAGE, page_token=token)
    )


def pages(search: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield what a search finds on all its pages. search: the token of a page → the page."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def run_filter(tags: Mapping[str, str], status: str | None = None) -> str:
    """Return a condition of MLflow's search grammar that every run with these tags and this status meets.

    The grammar has no escapes, so a value with both kinds of quotes is left out. Other runs may then meet the condition too, and
    the caller has to compare the tags.
    """
    parts = [f"tags.`{name}` = {quoted}" for name, value in tags.items() if (quoted := _quoted(value))]
    parts += [f"attributes.status = '{status}'"] if status else []
    return " and ".join(parts)


def _quoted(value: str) -> str | None:
    if (
        "'" not in value and "\\" not in value
    ):  # a backslash before the quote that ends it takes that for text
        return f"'{value}'"
    return f'"{value}"' if '"' not in value else None
