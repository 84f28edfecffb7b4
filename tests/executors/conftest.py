"""Executors of every kind for one contract, and the Ray cluster that the whole test run shares."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import MEMORY, on_ray

from ablate.executors.inline import InlineExecutor
from ablate.executors.local import LocalExecutor, cpu_slots
from ablate.launch import EXECUTORS


# An actor is a process, which takes Ray a second: test_ray.py has what is tested of it every time.
@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "ray")) for name in EXECUTORS])
def make(request):
    """A function that makes an executor of one slot, for a training."""
    if request.param == "inline":
        return InlineExecutor
    if request.param == "local":
        return lambda training: LocalExecutor(training, cpu_slots(1))
    assert request.param == "ray", "an executor that no contract holds"
    request.getfixturevalue("ray_cluster")
    return on_ray


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory) -> Iterator[str]:
    """The address of a cluster of two machines with a processor each: one for all test processes, begun by the first that asks.

    Whoever began it ends it once no other process uses it, and first takes back its address.
    """
    if not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed: pip install 'ablate[ray]'")
    from ray.cluster_utils import Cluster

    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    address, users = folder / "ray-address", folder / "ray-users"
    users.mkdir(exist_ok=True)
    cluster = None
    with _lock(folder / "ray-lock"):
        if not address.exists():
            cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 1,
                    "include_dashboard": False,
                    "object_store_memory": MEMORY,
                },
            )
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            address.write_text(cluster.address)
        me = users / str(os.getpid())
        me.touch()
        here = address.read_text()
    yield here
    with _lock(folder / "ray-lock"):
        me.unlink()
        if cluster is not None:  # whoever asks from now on begins another
            address.unlink()
    if cluster is not None:
        while any(Path(f"/proc/{user.name}").exists() for user in users.iterdir()):
            time.sleep(0.1)
        cluster.shutdown()


@pytest.fixture(scope="module")
def ray_cluster(ray_address) -> Iterator[str]:
    """The cluster, with this process connected to it."""
    import ray

    ray.init(address=ray_address, logging_level="ERROR", log_to_driver=True)
    yield ray_address
    ray.shutdown()
