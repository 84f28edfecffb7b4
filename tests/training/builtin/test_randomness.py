"""One stream of random numbers per source, derived from the run's seed by name."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch

from ablate.training.builtin.randomness import FIXED_SPLIT, Source, derive, generator

SOURCES = get_args(Source)


def stream(seed: int, source: str) -> torch.Tensor:
    return torch.rand(2000, generator=generator(seed, source))


def test_the_same_seed_gives_the_same_stream_and_another_seed_another():
    for source in SOURCES:
        assert torch.equal(stream(3, source), stream(3, source))
        assert not torch.equal(stream(3, source), stream(4, source))


def test_streams_of_a_seed_have_nothing_in_common():
    drawn = {source: stream(0, source).numpy() for source in SOURCES}
    for one, other in itertools.combinations(SOURCES, 2):
        assert abs(np.corrcoef(drawn[one], drawn[other])[0, 1]) < 0.1
        assert not set(drawn[one][:10]) & set(drawn[other])


def test_streams_of_neighbouring_seeds_have_nothing_in_common():
    drawn = [stream(seed, "weights").numpy() for seed in range(5)]
    for one, other in itertools.combinations(drawn, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_every_seed_and_source_has_a_stream_of_its_own():
    seeds = [*range(1000), *range(1000, 1010), 2000, 3000]
    derived = {derive(seed, source) for seed in seeds for source in (*SOURCES, FIXED_SPLIT)}
    assert len(derived) == len(seeds) * (len(SOURCES) + 1)
    assert all(0 <= value < 2**63 for value in derived)


def test_streams_do_not_touch_the_global_one():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    stream(0, "order")
    assert torch.equal(torch.get_rng_state(), before)


def test_derived_seeds_are_the_same_in_every_process_and_for_ever():
    # A change of these numbers makes every finished run one of another kind: it must be meant.
    assert derive(0, "weights") == 133441691874178746
    code = "from ablate.training.builtin.randomness import derive; print(derive(0, 'weights'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == derive(0, "weights")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_stream_lives_on_the_device_that_asks_for_it():
    drawn = torch.rand(10, generator=generator(0, "dropout", "cuda"), device="cuda")
    assert torch.equal(drawn, torch.rand(10, generator=generator(0, "dropout", "cuda"), device="cuda"))
