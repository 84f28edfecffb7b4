"""Runs in one worker: nothing that one of them does to its process changes the result of the next."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from ablate.events import Bundle, Finished, Task, is_last
from ablate.executors.local import LocalExecutor, cpu_slots
from ablate.training import runs
from ablate.training.payload import TORCH, Folders, RunPayload

# What a run does → what another run sees of it.
LEAKS: dict[str, tuple[str, str]] = {
    # in the user's modules
    "a list": ("CALLS.append(1)", "len(CALLS)"),
    "a name": ("global MODE; MODE = 'other'", "MODE"),
    "a new name": ("globals()['LATER'] = 1", "'LATER' in globals()"),
    "an attribute of a class": ("Net.count += 1", "Net.count"),
    "a registry in a class": ("Net.known['x'] = 1", "Net.known"),
    "a method of a class": ("Net.size = lambda self: 3", "Net().size()"),
    "an object": ("SETTINGS.values['rate'] = 2", "SETTINGS.values"),
    "an object with slots": ("POINT.x = 2", "POINT.x"),
    "a default argument": ("remembers(1)", "len(remembers(0)) - 1"),
    "an attribute of a function": ("remembers.calls = 2", "getattr(remembers, 'calls', 0)"),
    "a closure": ("counter()", "counter.__closure__[0].cell_contents"),
    "a cache": ("cached(1)", "cached.cache_info().currsize"),
    "a generator": ("next(NUMBERS)", "next(NUMBERS)"),
    "an iterator": ("next(ITERATOR)", "ITERATOR.__reduce__()[-1]"),
    "a count": ("next(COUNT)", "repr(COUNT)"),
    "an array, in place": ("DATA /= 2", "DATA.sum()"),
    "an array of objects": ("OBJECTS[0].append(1)", "len(OBJECTS[0])"),
    "a tensor, in place": ("TENSOR.mul_(2)", "TENSOR.sum().item()"),
    "a tensor, through NumPy": ("TENSOR.numpy()[0] = 7", "TENSOR.sum().item()"),
    "the weights of a network": ("NETWORK.weight.data.zero_()", "NETWORK.weight.sum().item()"),
    "a gradient": ("NETWORK(TENSOR).sum().backward()", "NETWORK.weight.grad is None"),
    "a generator of NumPy": ("RNG.random()", "RNG.bit_generator.state"),
    "a generator of Python": ("DICE.random()", "DICE.getstate()"),
    "a generator of torch": ("torch.rand(1, generator=DRAWS)", "DRAWS.get_state().sum().item()"),
    "another module": ("helper.STATE['mode'] = 1", "helper.STATE"),
    "a module that is imported late": ("import late; late.X = 2", "__import__('late').X"),
    # of Python and of packages
    "random": ("random.random()", "random.random()"),
    "numpy.random": ("np.random.rand()", "np.random.rand()"),
    "torch.rand": ("torch.rand(3)", "torch.rand(1).item()"),
    "seeds": ("random.seed(7); np.random.seed(7); torch.manual_seed(7)", "random.random(), np.random.rand()"),
    "the working folder": ("os.chdir('/')", "os.getcwd()"),
    "a removed working folder": (
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
        "os.path.isfile('leaky.py')",
    ),
    "a variable": ("os.environ['MODE'] = 'gain'", "os.environ.get('MODE')"),
    "a removed variable": ("del os.environ['PATH']", "os.environ.get('PATH')"),
    "sys.path": ("sys.path.insert(0, '/nowhere')", "sys.path"),
    "sys.argv": ("sys.argv[:] = ['x']", "sys.argv"),
    "sys.modules": ("sys.modules['colorsys'] = helper", "__import__('colorsys').__name__"),
    "the recursion limit": ("sys.setrecursionlimit(5000)", "sys.getrecursionlimit()"),
    "warnings": ("warnings.simplefilter('ignore')", "warnings.filters"),
    "a signal handler": ("signal.signal(signal.SIGTERM, print)", "signal.getsignal(signal.SIGTERM)"),
    "an alarm": ("signal.alarm(100)", "signal.alarm(0) > 0"),
    "the root logger": ("logging.basicConfig(level=10)", "logging.root.level, len(logging.root.handlers)"),
    "logging.disable": ("logging.disable(50)", "logging.root.manager.disable"),
    "decimal": ("decimal.getcontext().prec = 3", "decimal.Decimal(1) / 3"),
    "the umask": ("os.umask(0o077)", "os.umask(0o022)"),
    "gc": ("gc.disable()", "gc.isenabled()"),
    "a built-in function": ("import builtins; builtins.pow = lambda x, y: 3", "pow(2, 2)"),
    "stdout": ("sys.stdout = None", "sys.stdout is None"),
    "closed stdout": ("sys.stdout.close()", "sys.stdout.closed"),
    "the default dtype": ("torch.set_default_dtype(torch.float64)", "torch.zeros(1).dtype"),
    "the default device": ("torch.set_default_device('meta')", "torch.zeros(1).device"),
    "gradients off": ("torch.set_grad_enabled(False)", "torch.is_grad_enabled()"),
    "deterministic algorithms": (
        "torch.use_deterministic_algorithms(True)",
        "torch.are_deterministic_algorithms_enabled()",
    ),
    "cuDNN": ("torch.backends.cudnn.benchmark = True", "torch.backends.cudnn.benchmark"),
    "matmul precision": (
        "torch.set_float32_matmul_precision('medium')",
        "torch.get_float32_matmul_precision()",
    ),
    "threads": ("torch.set_num_threads(3)", "torch.get_num_threads()"),
    "denormals": ("torch.set_flush_denormal(True)", "(torch.full((1,), 1e-40) * 0.5).item() == 0"),
    "anomaly detection": ("torch.autograd.set_detect_anomaly(True)", "torch.is_anomaly_enabled()"),
    "NumPy's errors": ("np.seterr(all='raise')", "np.geterr()"),
    "NumPy's printing": ("np.set_printoptions(precision=2)", "repr(np.array([0.12345]))"),
    "a function of torch": ("F.relu = lambda x: x * 0", "F.relu(torch.ones(1)).item()"),
    "a method of torch": ("nn.Linear.forward = lambda self, x: x * 0", "nn.Linear(1, 1).forward.__name__"),
    "a hook on every module": (
        "nn.modules.module.register_module_forward_hook(lambda m, x, y: y * 0)",
        "nn.Identity()(torch.ones(1)).item()",
    ),
    # of the process
    "an open file": ("keep(open('leaky.py'))", "len(os.listdir('/proc/self/fd'))"),
    "a pipe": ("os.pipe()", "len(os.listdir('/proc/self/fd'))"),
    "a duplicate of a descriptor": ("os.dup(1)", "len(os.listdir('/proc/self/fd'))"),
    "a name in another module": ("np.MODE = 1", "hasattr(np, 'MODE')"),
    "a name in a module that nothing mentions": (
        "import colorsys; colorsys.mode = {}",
        "hasattr(__import__('colorsys'), 'mode')",
    ),
    "a name in a class of torch": ("nn.Linear.scale = 2", "hasattr(nn.Linear, 'scale')"),
    "an abstract class's register": (
        "import collections.abc; collections.abc.Sized.register(Point)",
        "isinstance(POINT, __import__('collections').abc.Sized)",
    ),
    "another logger": (
        "logging.getLogger('mine').addHandler(logging.StreamHandler())",
        "len(logging.getLogger('mine').handlers)",
    ),
    "another logger's level": ("logging.getLogger('mine').setLevel(5)", "logging.getLogger('mine').level"),
    "another logger's filter": (
        "logging.getLogger('torch').addFilter(lambda _: False)",
        "len(logging.getLogger('torch').filters)",
    ),
    "a function at exit": ("import atexit; atexit.register(print)", "__import__('atexit')._ncallbacks()"),
    "how a class is pickled": (
        "import copyreg; copyreg.pickle(Point, repr)",
        "Point in __import__('copyreg').dispatch_table",
    ),
    "a thread": (
        "threading.Thread(target=threading.Event().wait, daemon=True, name='mine').start()",
        "[t.name for t in threading.enumerate() if t.name == 'mine']",
    ),
    "a child process": (
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), daemon=True).start()",
        "len(multiprocessing.active_children())",
    ),
    # of packages that functions import
    "pandas": (
        "import pandas as pd; pd.set_option('display.max_rows', 3)",
        "__import__('pandas').get_option('display.max_rows')",
    ),
    "matplotlib": (
        "import matplotlib; matplotlib.rcParams['font.size'] = 3",
        "__import__('matplotlib').rcParams['font.size']",
    ),
    "scikit-learn": (
        "import sklearn; sklearn.set_config(assume_finite=True)",
        "__import__('sklearn').get_config()['assume_finite']",
    ),
    "the mask of an array": ("MASKED[0] = np.ma.masked", "MASKED.sum()"),
    "how masks are printed": ("np.ma.masked_print_option.set_display('N')", "str(np.ma.masked)"),
    "what masks are filled with": (
        "np.ma.core.default_filler['f'] = 0.0",
        "np.ma.array([1.0], mask=[True]).filled()[0]",
    ),
    "NumPy's buffers": ("np.setbufsize(4096)", "np.getbufsize()"),
    "mapped memory": ("MAPPED[0] = 7", "MAPPED[0]"),
    "a constant in a class of another package": (
        "import json; json.JSONEncoder.item_separator = ';'",
        "__import__('json').JSONEncoder.item_separator",
    ),
    "a constant in a module that is imported in a function": (
        "import PIL.ImageFile; PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True",
        "__import__('PIL.ImageFile').ImageFile.LOAD_TRUNCATED_IMAGES",
    ),
    "a function in a module that is imported in a function": (
        "import statistics as s; s.mean = lambda values: 3",
        "__import__('statistics').mean([1])",
    ),
    "the locale": (
        "import locale; locale.setlocale(locale.LC_ALL, 'C')",
        "__import__('locale').setlocale(0)",
    ),
    "torch's printing": ("torch.set_printoptions(precision=2)", "repr(torch.tensor([0.12345]))"),
    "torch's warnings": ("torch.set_warn_always(True)", "torch.is_warn_always_enabled()"),
    "what torch loads": (
        "torch.serialization.add_safe_globals([Point])",
        "len(torch.serialization.get_safe_globals())",
    ),
    "torch's attention": (
        "torch.backends.mha.set_fastpath_enabled(False)",
        "torch.backends.mha.get_fastpath_enabled()",
    ),
    "torch's compiler": (
        "import torch._dynamo; torch._dynamo.config.suppress_errors = True",
        "torch._dynamo.config.suppress_errors",
    ),
}

UNDONE = {
    "random",
    "numpy.random",
    "torch.rand",
    "seeds",
    "the working folder",
    "a removed working folder",
    "a variable",
    "a removed variable",
    "sys.path",
    "sys.argv",
    "the recursion limit",
    "warnings",
    "a signal handler",
    "an alarm",
    "the root logger",
    "decimal",
    "the umask",
    "gc",
    "stdout",
    "closed stdout",
    "the default dtype",
    "gradients off",
    "deterministic algorithms",
    "cuDNN",
    "threads",
    "denormals",
    "NumPy's errors",
    "NumPy's printing",
    "logging.disable",
    "the default device",
    "matmul precision",
    "anomaly detection",
    "another logger",
    "another logger's level",
    "another logger's filter",
    "how a class is pickled",
    "pandas",
    "scikit-learn",
    "how masks are printed",
    "what masks are filled with",
    "NumPy's buffers",
    "the locale",
    "torch's printing",
    "torch's warnings",
    "what torch loads",
    "torch's attention",
    "torch's compiler",
}
"""After these the next run goes on in the same process."""

MODULE = """
import decimal, functools, gc, itertools, logging, mmap, multiprocessing, os, random, signal, sys, threading, time, warnings, zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import helper

CALLS = []
MODE = "usual"
NUMBERS = (i for i in range(100))
ITERATOR = iter([1, 2, 3])
COUNT = itertools.count()
DATA = np.ones((100, 10))
OBJECTS = np.array([[], None], dtype=object)
TENSOR = torch.ones(4)
NETWORK = nn.Linear(4, 1)
RNG = np.random.default_rng(0)
DICE = random.Random(0)
DRAWS = torch.Generator()
MASKED, MAPPED = np.ma.array([1, 2, 3]), mmap.mmap(-1, 8)

class Net:
    count = 0
    known = {}
    def size(self):
        return 1

class Settings:
    def __init__(self):
        self.values = {"rate": 1}

class Point:
    __slots__ = ("x",)
    def __init__(self):
        self.x = 1

SETTINGS, POINT = Settings(), Point()

def keep(file):
    # Where nothing looks: the file alone tells.
    os.dup(file.fileno())

def remembers(value, seen=[]):
    return [*seen, value] if value == 0 else seen.append(value)

def make_counter():
    n = 0
    def count():
        nonlocal n
        n += 1
    return count

counter = make_counter()

@functools.lru_cache
def cached(value):
    return value
"""


def module() -> str:
    """The module: with a function that does what a leak does, and one that looks, for each of them."""
    text = MODULE
    for i, (leak, look) in enumerate(LEAKS.values()):
        text += f"\ndef leak{i}():\n    global DATA\n    {leak}\n\ndef look{i}():\n    return {look}\n"
    return f"""{text}
def train(config, seed):
    if config["leak"] is not None:
        globals()[f"leak{{config['leak']}}"]()
    looks = {{}}
    for i in config["looks"]:
        if len(config["looks"]) > 1:  # what one look draws is nothing to the next
            random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        looks[f"look {{i}}"] = zlib.crc32(repr(globals()[f"look{{i}}"]()).encode())
    yield {{"done": 1, "hashes are random": sys.flags.hash_randomization, **looks}}
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaks")
    (folder / "leaky.py").write_text(module())
    (folder / "helper.py").write_text("STATE = {}\n")
    (folder / "late.py").write_text("X = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        training = partial(runs.train, folders=Folders.under(folder / "mlruns"))
        with LocalExecutor(training, cpu_slots(1), ("ablate.training.runs", *TORCH)) as executor:
            yield executor


def trained(executor, leak: int | None, looks: list[int]):
    """Train a run: what it sees, the process that trained it, and what it left behind."""
    payload = RunPayload({"leak": leak, "looks": looks}, 3, source={"train": "leaky:train"})
    executor.submit(Bundle((Task("run", 1, payload),)), executor.slots[0])
    events = []
    while not events or not is_last(events[-1]):
        arrived = executor.wait(60)
        assert arrived, "the run hangs"
        events += arrived
    assert isinstance(events[-1], Finished), events[-1]
    return events[1].metrics, events[0].facts["pid"], events[-1].facts.get("left_behind")


@pytest.fixture(scope="module")
def alone(worker):
    """What a run sees that no other was before."""
    return trained(worker, None, list(range(len(LEAKS))))[0]


# A process each: these stand for their kinds, the others are looked at by `make soak`.
QUICK = (
    *("a list", "an attribute of a class", "the weights of a network", "random", "a generator of NumPy"),
    *("a variable", "a method of torch", "NumPy's printing", "an open file", "a name in another module"),
    *("an abstract class's register", "another logger"),
)
assert set(QUICK) <= set(LEAKS)


@pytest.mark.parametrize(
    "leak", [pytest.param(leak, marks=[pytest.mark.slow] * (leak not in QUICK)) for leak in LEAKS]
)
def test_what_a_run_does_to_its_process_changes_nothing_for_the_next(worker, alone, leak):
    number = list(LEAKS).index(leak)
    in_itself, process, left = trained(worker, number, [number])
    seen, next_process, _ = trained(worker, None, [number])
    assert in_itself[f"look {number}"] != alone[f"look {number}"], "the look does not see its leak"
    assert seen[f"look {number}"] == alone[f"look {number}"]
    # torch loads parts of itself at their first use where the forkserver has not: that takes a fresh process, and nothing else.
    of_torch = bool(left) and all(name.startswith("torch.") for name in left.rstrip("…").split(", "))
    assert (next_process == process) == (leak in UNDONE) or of_torch, left
    assert (left is None) == (leak in UNDONE) or of_torch


def test_sets_of_texts_have_the_same_order_in_the_workers_of_every_command(worker):
    assert trained(worker, None, [])[0]["hashes are random"] == 0
