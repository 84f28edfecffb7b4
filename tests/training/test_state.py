"""What a run leaves behind, wherever the globals of a module lead, is noticed; what only looking at it changes is not."""

import importlib
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ablate.training.state import ProcessState

MODULE = """
import array, collections, contextvars, ctypes, enum, functools, io, itertools, os, queue, random, sqlite3, threading, weakref

import numpy as np
import pandas
import torch
from torch.optim import SGD

class Outer:
    class Inner:
        seen = 0

def make():
    class Local:
        seen = 0
    return Local

class Text(str): pass
class Known(set): pass
class Mode(enum.Enum):
    A = []

class Settings:
    def __init__(self):
        self.__dict__["values"] = {"rate": 1}
    def __getattr__(self, name):
        return self.values[name]

LOCAL, MADE = make()(), {"x": make()}
FILE, NOTES, BYTES = open(__file__), io.StringIO(), io.BytesIO()
PAIRS, REVERSED, ITEMS = itertools.product([1, 2], [3]), reversed([1, 2]), iter({1: 2}.items())
NUMBERS, VIEW, QUEUE, COUNT = array.array("i", [1]), memoryview(bytearray(b"ab")), queue.SimpleQueue(), ctypes.c_int(0)
VARIABLE, LOCK, TABLE = contextvars.ContextVar("v"), threading.Lock(), sqlite3.connect(":memory:")
TABLE.execute("create table t (x)")
TEXT, KNOWN, SETTINGS = Text("x"), Known(), Settings()
BITS, CHILDREN, DRAW = np.random.PCG64(0), np.random.SeedSequence(0), np.random.default_rng(0).random
FRAME, STORAGE = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}), torch.zeros(2).untyped_storage()
with torch.inference_mode():
    FROZEN = torch.ones(2)
SENTINEL = object()
"""

LEAKS = {
    "an attribute of an inner class": "Outer.Inner.seen = 1",
    "an attribute of a local class": "type(LOCAL).seen = 1",
    "an attribute of a class in a dict": "MADE['x'].seen = 1",
    "an attribute of a text": "TEXT.seen = 1",
    "an attribute of a set": "KNOWN.seen = 1",
    "the value of an enum": "Mode.A.value.append(1)",
    "an object that answers every name": "SETTINGS.values['rate'] = 2",
    "the position of a file": "FILE.readline()",
    "a text in memory": "NOTES.write('x')",
    "bytes in memory": "BYTES.write(b'x')",
    "an iterator of itertools": "next(PAIRS)",
    "a reversed list": "next(REVERSED)",
    "the items of a dict": "next(ITEMS)",
    "an array of the standard library": "NUMBERS[0] = 2",
    "a view of memory": "VIEW[0] = 1",
    "a queue": "QUEUE.put(1)",
    "a number of C": "COUNT.value = 1",
    "a variable of the context": "VARIABLE.set(1)",
    "a lock": "LOCK.acquire()",
    "a database in memory": "TABLE.execute('insert into t values (1)')",
    "bits of NumPy": "BITS.random_raw()",
    "seeds of NumPy": "CHILDREN.spawn(1)",
    "a method of a generator of NumPy": "DRAW()",
    "a frame of pandas": "FRAME.loc[0, 'a'] = 3",
    "a column of pandas": "FRAME['c'] = 1",
    "texts of pandas": "FRAME.loc[0, 'b'] = 'z'",
    "a storage of torch": "STORAGE[0] = 1",
    "a tensor of inference": "with torch.inference_mode(): FROZEN[0] = 2",
    "another sentinel": "SENTINEL = object()",
}

numbers = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch) -> ModuleType:
    pytest.importorskip("pandas")
    name = f"leaky_state_{next(numbers)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    sys.modules.pop(name).FILE.close()


def test_whatever_the_globals_lead_to_is_noticed_and_looking_at_it_changes_nothing(module):
    state = ProcessState([module.__name__])
    assert state.left_behind() == []
    for leak in LEAKS.values():
        exec(leak, vars(module))
        assert state.left_behind(), leak
        state = ProcessState([module.__name__])
    assert state.left_behind() == []


def test_code_of_the_users_that_fails_where_it_is_looked_at_counts_as_changed(module):
    class Odd(dict):
        def items(self):
            raise KeyError

    module.ODD = Odd()
    state = ProcessState([module.__name__])
    assert state.left_behind() == [f"{module.__name__}.*"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (np.random, "rand"),
        (time, "time"),
        (random, "random"),
        (torch.optim.SGD, "step"),
        (torch.nn.Linear, "reset_parameters"),
    ],
)
def test_functions_that_are_replaced_are_noticed_whatever_the_module_imports(monkeypatch, owner, name):
    state = ProcessState([])
    monkeypatch.setattr(owner, name, lambda *_: 0)
    assert [place.rpartition(".")[2] for place in state.left_behind()][:1] == [name]


def test_constants_of_packages_that_are_replaced_are_noticed(monkeypatch):
    state = ProcessState([])
    monkeypatch.setattr("math.pi", 3)
    assert state.left_behind() == ["math.pi"]


def _limit(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


SETTINGS = {
    "blocked signals": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    ),
    "limits": (lambda: _limit(200), lambda: resource.getrlimit(resource.RLIMIT_NOFILE)),
    "autocast": (
        lambda: torch.set_autocast_dtype("cpu", torch.float16),
        lambda: torch.get_autocast_dtype("cpu"),
    ),
    "attention": (
        lambda: torch.backends.cuda.enable_flash_sdp(enabled=False),
        torch.backends.cuda.flash_sdp_enabled,
    ),
    "NumPy's handler of errors": (lambda: np.seterrcall(print), np.geterrcall),
    "digits": (lambda: sys.set_int_max_str_digits(0), sys.get_int_max_str_digits),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_are_set_back(setting):
    change, look = SETTINGS[setting]
    before, state = look(), ProcessState([])
    change()
    assert look() != before
    assert state.left_behind() == []
    assert look() == before


def test_the_time_zone_is_set_back_with_its_variable(monkeypatch):
    before, state = time.localtime(0).tm_hour, ProcessState([])
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
    assert state.left_behind() == []
    assert time.localtime(0).tm_hour == before


def test_another_bit_generator_of_numpy_is_noticed():
    state, before = ProcessState([]), np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))
    try:
        assert state.left_behind() == ["the bit generator of numpy.random"]
    finally:
        np.random.set_bit_generator(before)


@pytest.mark.skipif(
    not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"), reason="this torch does not tell"
)
def test_a_mode_of_torch_that_is_entered_and_not_left_is_noticed():
    state = ProcessState([])
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        assert state.left_behind() == ["modes of torch"]
    assert ProcessState([]).left_behind() == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells")
def test_a_program_that_runs_on_is_noticed_and_one_that_has_ended_is_not():
    state = ProcessState([])
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
        assert [name.partition(":")[0] for name in state.left_behind()] == [
            "a child process",
            "the open file pipe",
        ]
    assert state.left_behind() == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder in memory")
def test_an_open_file_in_memory_is_noticed_and_a_device_is_not():
    state = ProcessState([])
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        with Path(folder, "rows").open("w"), Path(os.devnull).open("w"):
            assert state.left_behind() == [f"the open file {folder}/rows"]
        assert state.left_behind() == []


def test_a_run_of_mlflow_that_was_not_ended_is_none_of_the_next_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    state = ProcessState([])
    # As where the run itself imports it.
    state._loaded.pop("mlflow", None)
    state._settings.pop("mlflow", None)
    import mlflow

    # Else it is the store of an earlier test, which may be gone.
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "scratch").as_uri())
    mlflow.log_metric("mine", 1)
    assert mlflow.active_run() is not None
    assert "mlflow" not in state.left_behind()
    assert mlflow.active_run() is None


def test_packages_keep_their_versions_where_importlib_metadata_came_with_a_run():
    state = ProcessState(())
    __import__("importlib_metadata")
    state.left_behind()
    assert importlib.import_module("importlib.metadata").version("torch")
