"""What tests of training share: prepared data, and one way to run a config."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _prepared(shared_cache, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(shared_cache))
