"""Writing into any store that MLflow knows, by MLflow's client: it imports MLflow, which takes seconds."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from ablate.tracking.local_client import Point
from ablate.tracking.searches import matching_runs, run_filter


class ServerClient(MlflowClient):
    """MLflow's client with the methods that `LocalClient` has beyond those of MLflow's."""

    undoes = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Every call is a transaction of its own: what was done stays done."""
        yield

    def matching(self, experiment: str, tags: Mapping[str, str]) -> Iterator[Any]:
        """Yield the active runs of an experiment that carry all the tags."""
        for run in matching_runs(self, [experiment], run_filter(tags)):
            if tags.items() <= run.data.tags.items():
                yield run

    def log(
        self,
        run: str,
        metrics: Sequence[Point] = (),
        params: Sequence[tuple[str, str]] = (),
        tags: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Record metrics, parameters and tags: as many as MLflow takes in one call."""
        self.log_batch(
            run,
            metrics=[Metric(*point) for point in metrics],
            params=list(itertools.starmap(Param, params)),
            tags=list(itertools.starmap(RunTag, tags)),
        )

    def log_dataset(self, run: str, name: str, digest: str, source: str, profile: str) -> None:
        """Record what a run is trained on; recorded twice, it stands there once."""
        dataset = Dataset(name, digest, "ablate", source, profile=profile)
        self.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
