"""Executors on the Ray cluster of the test run, which conftest.py begins."""

from __future__ import annotations

import scripted

from ablate.executors.ray import RayExecutor, Request

MEMORY = 100 << 20
"""Bytes of a test machine's object store."""


def on_ray(training=scripted.train, workers=1) -> RayExecutor:
    return RayExecutor(training, Request(), workers)
