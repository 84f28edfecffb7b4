"""What training of the user's reads besides its code and settings: it is recorded, and looked at again before its results are reused."""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import pytest

from ablate.training import inputs
from ablate.training.command import CommandConfig
from ablate.training.inputs import Inputs, changed
from ablate.training.source_files import folder_code_again

READING = {
    "JSON": ("import json\nwith open('gain.txt') as file:\n    GAIN = json.load(file)", "gain.txt"),
    "beside its own file": (
        "from pathlib import Path\nGAIN = float((Path(__file__).parent / 'gain.txt').read_text())",
        "gain.txt",
    ),
    "in the function": ("def train():\n    return float(Path('gain.txt').read_text())", "gain.txt"),
    "in a folder, by a name that is computed": (
        "import os\ndef train():\n    return [Path(f'data/{name}').read_text() for name in sorted(os.listdir('data'))]",
        "data/gain.txt",
    ),
    "by a library": ("import numpy as np\ndef train():\n    return np.loadtxt('gain.txt')", "gain.txt"),
    "in a thread": (
        (
            "import threading\ndef train():\n    t = threading.Thread(target=read); t.start(); t.join()\n"
            "def read():\n    Path('gain.txt').read_text()"
        ),
        "gain.txt",
    ),
    "in a thread of a pool, which knows nothing of whose work it does": (
        (
            "from concurrent.futures import ThreadPoolExecutor\ndef train():\n"
            "    with ThreadPoolExecutor(1) as pool:\n        list(pool.map(Path.read_text, [Path('gain.txt')]))"
        ),
        "gain.txt",
    ),
    "in a process that it forks": (
        "import os\ndef train():\n    fork(lambda: Path('gain.txt').read_text())",
        "gain.txt",
    ),
    "in a process that a forked one forks": (
        "import os\ndef train():\n    fork(lambda: fork(lambda: Path('gain.txt').read_text()))",
        "gain.txt",
    ),
    "to write it, and leaves it as it is": (
        "def train():\n    with open('gain.txt', 'r+') as file:\n        file.read()",
        "gain.txt",
    ),
    "by a descriptor that could write": (
        "import os\ndef train():\n    os.close(os.open('gain.txt', os.O_RDWR))",
        "gain.txt",
    ),
    "by its descriptor": (
        "import os\ndef train():\n    os.close(os.open('gain.txt', os.O_RDONLY))",
        "gain.txt",
    ),
    "settings of a package": (
        "import configparser\nc = configparser.ConfigParser()\nc.read('gain.txt')",
        "gain.txt",
    ),
    "variables from a file": ("def train():\n    exec(Path('.env').read_text(), {})", ".env"),
    "a module that a package imports by its name": (
        "import pickle\ndef train():\n    return pickle.loads(b'coptimizers_of_mine\\nGAIN\\n.')",
        "optimizers_of_mine.py",
    ),
    "a resource of a package": ("import pkgutil\nGAIN = pkgutil.get_data(__name__, 'gain.txt')", "gain.txt"),
}


FORK = """
def fork(work):
    import os, warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are threads of other tests
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture
def reads(tmp_path, monkeypatch):
    """What a module reads while it is imported and its function is called, as it is recorded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    loaded = set(sys.modules)

    def run(code: str) -> str:
        (tmp_path / "reading.py").write_text("from pathlib import Path\n" + FORK + code)
        importlib.invalidate_caches()
        inputs = Inputs()
        inputs.begin()
        with inputs:
            module = importlib.import_module("reading")
            getattr(module, "train", str)()
        return inputs.text([str(tmp_path / "reading.py")])

    yield run
    for name in set(sys.modules) - loaded:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def is_nothing_read(text: str) -> bool:
    known = json.loads(text or "{}")
    return not any(known.get(kind) for kind in ("files", "folders", "variables"))


@pytest.mark.parametrize("how", READING)
def test_a_file_that_training_reads_is_known_to_have_changed(reads, tmp_path, how):
    code, name = READING[how]
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        "GAIN = 1\n" if "optimizers" in name or name == ".env" else "[a]\n" if "package" in how else "1"
    )
    if how == "a resource of a package":
        file.write_text("1")
    os.utime(file, (1, 1))
    text = reads(code)
    assert list(json.loads(text)["files"]) == [name]
    assert changed(text) == []
    file.write_text(file.read_text() + "2")
    assert changed(text) == [name]


def test_what_training_writes_or_makes_or_what_is_of_the_machine_does_not_count(reads, tmp_path):
    for name in ("log.txt", "state.txt", "counts.txt", "lock.txt"):
        (tmp_path / name).write_text("before")
        os.utime(tmp_path / name, (1, 1))
    sqlite3.connect(tmp_path / "results.db").execute("create table t (x)").connection.close()
    os.utime(tmp_path / "results.db", (1, 1))
    text = reads(
        "import json, os, sqlite3, subprocess, sys\n"
        "def train():\n"
        "    with open('state.txt', 'r+') as file:\n        file.write('now')\n"
        "    with sqlite3.connect('results.db') as database:\n        database.execute('insert into t values (1)')\n"
        "    database.close()\n"
        "    fork(lambda: (Path('counts.txt').write_text('1'), Path('counts.txt').read_text()))\n"
        "    os.close(os.open('lock.txt', os.O_RDWR | os.O_CREAT))\n"
        "    Path('log.txt').read_text(); os.close(os.open('log.txt', os.O_WRONLY | os.O_APPEND))\n"
        "    Path('new.txt').write_text('x'); Path('new.txt').read_text()\n"
        '    subprocess.run([sys.executable, \'-c\', \'open("result.txt", "w").write("1")\'], check=True)\n'
        "    Path('result.txt').read_text(); Path('/proc/cpuinfo').read_text(); Path(json.__file__).read_text()\n"
        "    dict(os.environ), os.environ.get('HOME'), os.environ.get('MY_API_TOKEN'), os.environ.copy()\n"
    )
    assert is_nothing_read(text)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder in memory")
@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("Path('best.txt').write_text('1')", {"best.txt": False}),
        ("Path('best.txt').write_text('1'); Path('best.txt').read_text()", {"best.txt": True}),
        ("with open('best.txt', 'a') as file: file.write('1')", {}),
        ("Path('best.txt').write_text('1'); os.remove('best.txt')", {}),
        (
            "import subprocess; subprocess.run('echo > best.txt', shell=True); Path('best.txt').read_text()",
            {"best.txt": True},
        ),
        ("Path('.cache').mkdir(); Path('.cache/best.txt').write_text('1')", {}),
        ("fork(lambda: Path('best.txt').write_text('1'))", {"best.txt": False}),
        ("Path('old.txt').read_text(); Path('old.txt').write_text('1')", {"old.txt": True}),
        ("Path('old.txt').read_text()", {}),
    ],
)
def test_what_a_run_makes_where_others_find_it_is_recorded(reads, tmp_path, code, made):
    (tmp_path / "old.txt").write_text("0")
    os.utime(tmp_path / "old.txt", (1, 1))
    text = reads(f"import os\ndef train():\n    {code}")
    assert json.loads(text or "{}").get("made", {}) == made
    assert changed(text) == []


def test_a_forked_process_that_closes_everything_writes_into_none_of_its_own_files(reads, tmp_path):
    (tmp_path / "gain.txt").write_text("1")
    os.utime(tmp_path / "gain.txt", (1, 1))
    reads(
        "import os\ndef work():\n    os.closerange(3, 256)\n"
        "    for number in range(60):\n        os.open(f'own{number}', os.O_CREAT | os.O_WRONLY)\n"
        "    os.read(os.open('gain.txt', os.O_RDONLY), 9)\ndef train():\n    fork(work)\n"
    )
    assert {file.read_text() for file in tmp_path.glob("own*")} == {""}


def test_a_file_in_memory_counts_and_a_device_does_not(reads):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        file = Path(folder, "images.txt")
        file.write_text("1")
        os.utime(file, (1, 1))
        text = reads(f"def train():\n    Path({str(file)!r}).read_text(); Path('/dev/null').read_text()\n")
        assert list(json.loads(text)["files"]) == [str(file)]


LISTING = {
    "os.listdir": "len(os.listdir('data'))",
    "os.scandir": "[entry.name for entry in os.scandir('data')]",
    "os.walk": "list(os.walk('data'))",
    "glob": "glob.glob('data/*.txt')",
    "glob of all folders": "glob.glob('**/*.txt', recursive=True)",
    "Path.glob": "list(Path('data').glob('*.txt'))",
    "Path.iterdir": "list(Path('data').iterdir())",
    "a module that Python has": "shutil.copytree('data', 'copy', dirs_exist_ok=True)",
}


@pytest.mark.parametrize("how", LISTING)
def test_files_that_come_to_those_that_training_lists_are_a_change_and_so_is_one_that_is_gone(
    reads, tmp_path, how
):
    (tmp_path / "data" / ".cache").mkdir(parents=True)
    for file in (tmp_path / "data" / "a.txt", tmp_path / "data", tmp_path):
        file.touch()
        os.utime(file, (1, 1))
    text = reads(f"import glob, os, shutil\ndef train():\n    {LISTING[how]}\n")
    assert changed(text) == []
    (tmp_path / "data" / ".cache" / "x").touch()
    (tmp_path / "elsewhere").mkdir()
    assert changed(text) == []
    (tmp_path / "data" / "b.txt").touch()
    assert changed(text) == ["data/"]
    (tmp_path / "data" / "b.txt").unlink()
    assert changed(text) == []
    (tmp_path / "data" / "a.txt").unlink()
    assert changed(text)[-1] == "data/"


def test_a_folder_that_training_writes_in_and_the_working_folder_do_not_count(reads, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / ".git").mkdir()
    text = reads(
        "import os\ndef train():\n    Path('out/1.txt').write_text('x')\n    [os.listdir(each) for each in ('out', '.', '..', '.git')]\n"
    )
    assert is_nothing_read(text)


def test_of_many_folders_those_around_them_are_recorded(reads, tmp_path):
    for name in range(200):
        (tmp_path / "images" / f"a class with a name of some length {name}").mkdir(parents=True)
    for folder in tmp_path.rglob("*"):
        os.utime(folder, (1, 1))
    text = reads("def train():\n    list(Path('images').rglob('*.png'))")
    assert len(text) < 4000
    assert changed(text) == []
    (tmp_path / "images" / "a class with a name of some length 150" / "new.png").touch()
    assert changed(text) == ["images/"]


@pytest.mark.parametrize("name", ["override.txt", ".settings/override.txt"])
@pytest.mark.parametrize("there", [False, True])
def test_a_file_of_the_working_folder_that_comes_or_goes_is_a_change(reads, tmp_path, name, there):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    code = f"def train():\n    try:\n        Path('{name}').read_text()\n    except FileNotFoundError:\n        pass\n"
    if not there:
        text = reads(code)
        file.touch()
    else:
        file.touch()
        os.utime(file, (1, 1))
        text = reads(code)
        assert changed(text) == []
        file.unlink()
    assert changed(text) == [name]


def test_what_forked_processes_read_is_told_once_and_no_file_stays_open(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "forking.py").write_text(
        FORK + "import os\ndef epoch():\n"
        "    for number in range(3):\n        fork(lambda: (open(f'{number}.txt').close(), os.environ.get('RATE_OF_ONE')))\n"
    )
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("1")
        os.utime(tmp_path / f"{number}.txt", (1, 1))
    before = set(Path("/proc/self/fd").glob("*"))
    told = Inputs()
    told.begin()
    with told:
        epoch = importlib.import_module("forking").epoch
        epoch()
    with told:  # the next epoch
        epoch()
    record = json.loads(told.text([str(tmp_path / "forking.py")]))
    assert (list(record["files"]), list(record["variables"])) == (
        ["0.txt", "1.txt", "2.txt"],
        ["RATE_OF_ONE"],
    )
    assert set(Path("/proc/self/fd").glob("*")) == before
    del sys.modules["forking"]


def test_libraries_and_databases_by_address_are_inputs(reads, tmp_path):
    for name in ("lib.so", "a b.db"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1, 1))
    text = reads(
        "import contextlib, ctypes, sqlite3\ndef train():\n    with contextlib.suppress(OSError):\n        ctypes.CDLL('./lib.so')\n"
        "    sqlite3.connect('file:a%20b.db?mode=ro', uri=True).close()\n"
    )
    assert list(json.loads(text)["files"]) == ["a b.db", "lib.so"]


def test_a_word_that_is_called_a_token_is_a_setting_and_a_password_is_none(reads, monkeypatch):
    monkeypatch.setenv("MASK_TOKEN", "103")
    monkeypatch.setenv("API_TOKEN", "s3cr3t-of-mine")
    monkeypatch.setenv("DB_PASSWORD", "1234")
    text = reads(
        "import os\ndef train():\n    [os.environ[n] for n in ('MASK_TOKEN', 'API_TOKEN', 'DB_PASSWORD')]\n"
    )
    assert list(json.loads(text)["variables"]) == ["MASK_TOKEN"]


@pytest.mark.parametrize(
    "asking",
    [
        "os.environb[b'GAIN']",
        "os.getenvb(b'GAIN')",
        "os.environ['GAIN']",
        "os.environ.get('GAIN')",
        "os.getenv('GAIN', 2)",
        "'GAIN' in os.environ",
        "os.path.expandvars('$GAIN/x')",
        "__import__('string').Template('${GAIN}/x').substitute(os.environ)",
        "__import__('argparse').ArgumentParser().set_defaults(x=os.path.expandvars('a/${GAIN}'))",
    ],
)
def test_a_variable_that_training_asks_for_is_known_to_have_changed(reads, monkeypatch, asking):
    monkeypatch.setenv("GAIN", "1")
    text = reads(f"import os\ndef train():\n    return {asking}\n")
    assert changed(text) == []
    monkeypatch.setenv("GAIN", "2")
    assert changed(text) == ["$GAIN"]
    monkeypatch.delenv("GAIN")
    assert changed(text) == ["$GAIN"]
    assert "2" not in json.loads(text)["variables"]


def test_a_variable_that_only_packages_know_of_is_none_of_the_training(reads, monkeypatch):
    monkeypatch.setenv("GAIN", "1")
    monkeypatch.setenv("PAGER", "1")
    text = reads("import pydoc\ndef train():\n    'GAINS again'\n    pydoc.getpager()\n")
    assert is_nothing_read(text)


def test_of_a_whole_data_set_it_is_the_sizes_that_count(reads, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MOST_READ", 10)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("12345678")
        os.utime(tmp_path / name, (1, 1))
    text = reads("def train():\n    [Path(f'{name}.txt').read_text() for name in 'ab']")
    assert changed(text) == []
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("87654321")
    assert changed(text) == ["a.txt"]
    (tmp_path / "b.txt").write_text("1")
    assert changed(text) == ["a.txt", "b.txt"]


def test_folders_of_many_files_are_recorded_in_few_letters(reads, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(300):
        (tmp_path / "images" / f"{number}.png").write_text("x")
        os.utime(tmp_path / "images" / f"{number}.png", (1, 1))
    text = reads(
        "import os\ndef train():\n    [Path(f'images/{n}').read_text() for n in os.listdir('images')]"
    )
    assert len(text) < 4000
    assert changed(text) == []
    (tmp_path / "images" / "new.png").write_text("x")
    assert changed(text) == ["images/"]


@pytest.mark.parametrize(
    "text", ["", "x", "[]", '{"files": 1}', '{"files": {}, "folders": null, "variables": {}}']
)
def test_a_damaged_record_says_nothing(text):
    assert changed(text) == []


# --- commands ---------------------------------------------------------------------------------------------------------

BESIDE = {
    "a file that the code names": ({"train.py": "open('gain.txt')"}, ["python", "train.py"], "gain.txt"),
    "a file of settings, by its stem": (
        {"train.py": "load(config_name='small')"},
        ["python", "train.py"],
        "conf/small.yaml",
    ),
    "a file that an argument names by its stem": (
        {"train.py": "load()"},
        ["python", "train.py", "model=small"],
        "conf/model/small.yaml",
    ),
    "a file that a file names": (
        {"train.py": "open('base.yaml')", "base.yaml": "include: deep.yaml"},
        ["python", "train.py"],
        "deep.yaml",
    ),
    "a file that a file names that an argument names": (
        {"train.py": "load()", "base.yaml": "include: deep.yaml"},
        ["python", "train.py", "--config=base.yaml"],
        "deep.yaml",
    ),
    "variables from a file": ({"train.py": "from dotenv import load_dotenv"}, ["python", "train.py"], ".env"),
    "a folder that an argument names": (
        {"train.py": ""},
        ["python", "train.py", "--data", "images"],
        "images/a/1.png",
    ),
    "a file elsewhere, by its path": (
        {"train.py": "open('../beside/gain.txt')"},
        ["python", "train.py"],
        "../beside/gain.txt",
    ),
    "a folder that the code names": (
        {"train.py": "ImageFolder('images')"},
        ["python", "train.py"],
        "images/a/1.png",
    ),
    "files that are looked for": (
        {"train.py": "glob('data/**/*.csv')"},
        ["python", "train.py"],
        "data/a.csv",
    ),
    "files that are looked for beside it": ({"train.py": "glob('*.csv')"}, ["python", "train.py"], "a.csv"),
    "a file whose name is filled in": (
        {"train.py": "open(f'data/{split[\"x\"]}.csv')"},
        ["python", "train.py"],
        "data/train.csv",
    ),
    "a file that is loaded by its number": (
        {"train.py": "np.load(f'fold{k}.npy')"},
        ["python", "train.py"],
        "fold1.npy",
    ),
    "a file with a number": ({"train.py": "open('fold%02d.csv' % k)"}, ["python", "train.py"], "fold01.csv"),
    "a folder that settings name": (
        {"train.py": "load('base.yaml')", "base.yaml": "data: {root: images}"},
        ["python", "train.py"],
        "images/a/1.png",
    ),
    "files that a script of a shell names": (
        {"train.sh": "for f in data/*.csv; do train $f; done"},
        ["sh", "train.sh"],
        "data/a.csv",
    ),
    "a folder that a recipe names": ({"Makefile": "all:\n\ttrain images\n"}, ["make"], "images/1.png"),
}


def config_of(command: list[str], **more: object) -> CommandConfig:
    source = {"command": command, "env": {}, "metrics": {"accuracy": {"line": "a"}}, **more}
    return CommandConfig.parse(source, {"x": 1})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write files of a project, last changed long ago."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def write(files: dict[str, str]) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)

    return write


@pytest.mark.parametrize("how", BESIDE)
def test_what_a_command_may_read_is_known_to_have_changed(project, tmp_path, how):
    files, command, name = BESIDE[how]
    project({**files, name: "1", "notes.txt": "1"})
    text = config_of(command).inputs(tmp_path / "run").text()
    assert changed(text) == []
    project({name: "22", "notes.txt": "22"})
    assert inputs.named(os.path.realpath(name)) in changed(text)
    assert "notes.txt" not in text


def test_what_is_written_where_all_runs_of_a_command_write_is_recorded(project, tmp_path):
    project({"run.sh": "sed s/LR/$1/ base.yaml > config.yaml; train config.yaml --save best.pt >> all.csv"})
    project({"base.yaml": "LR", "config.yaml": "1", "all.csv": "1\n", "plot.png": "", "other.txt": "1"})
    run = config_of(["sh", "run.sh", "plot.png"]).inputs(tmp_path / "run")
    project({"config.yaml": "22", "best.pt": "1", "all.csv": "1\n2\n", "plot.png": "1", "other.txt": "22"})
    project({"runs/1/best.pt": "1"})
    assert json.loads(run.text())["made"] == {"config.yaml": True, "best.pt": False}


def test_settings_that_git_tracks_name_what_it_does_not(project, tmp_path):
    project({"train.py": "open('base.json')", "base.json": '{"path": "data/gain.txt"}', ".gitignore": "data"})
    project({"other.toml": "images", "images/1.png": "1", "data/gain.txt": "1", "data/notes.txt": "1"})
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "train.py", "base.json", "other.toml"], check=True)
    text = config_of(["python", "train.py"]).inputs(tmp_path / "run").text()
    project({"data/gain.txt": "22", "data/notes.txt": "22", "images/1.png": "22"})
    assert changed(text) == ["data/gain.txt"]


def test_results_whose_names_are_filled_in_and_documents_do_not_count(project, tmp_path):
    project(
        {
            "train.py": "save(f'{name}.json'); print(f'loss {x:.4f}'); open('pages'); open(f'of_{name}.csv', 'w')"
        }
    )
    project({"last.json": "1", "pages/notes.md": "1", "of_last.csv": "1"})
    run = config_of(["python", "train.py"]).inputs(tmp_path / "run")
    project({"now.json": "1", "of_now.csv": "1"})
    assert run.text() == ""


def test_what_a_command_writes_or_names_as_data_does_not_count(project, tmp_path):
    project(
        {
            "train.py": "open('out.txt'); open('data.txt'); save('results')",
            "out.txt": "1",
            "data.txt": "1",
            "results/0.txt": "1",
        }
    )
    inputs = config_of(["python", "train.py", "-o", "results"], data=["data.txt"]).inputs(tmp_path / "run")
    project({"out.txt": "22", "results/1.txt": "1"})
    assert is_nothing_read(inputs.text())


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("train.py", "os.environ['GAIN']"),
        ("train.py", 'os.getenv("GAIN", 1)'),
        ("train.sh", "f ${GAIN:-1}"),
        ("train.sh", "f $GAIN"),
        ("train.py", "from os import environ as env\nenv.get('GAIN')"),
        ("train.py", "@click.option('--gain', envvar='GAIN')"),
        ("train.py", "open('base.yaml') # gain: ${oc.env:GAIN,1}"),
        ("train.jl", 'ENV["GAIN"]'),
        ("train.js", "process.env.GAIN"),
        ("train.rs", 'env::var("GAIN")'),
        ("train", "#!/bin/sh\nf $GAIN"),
        ("Makefile", "all:\n\ttrain $(GAIN)"),
        ("Makefile", "GAIN ?= 1\nall:\n\ttrain $(GAIN)"),
        ("Makefile", "all:\n\ttrain $$GAIN"),
        ("justfile", "gain := env_var_or_default('GAIN', '1')"),
    ],
)
def test_a_variable_that_a_command_asks_for_is_known_to_have_changed(
    project, tmp_path, monkeypatch, name, code
):
    project({name: code, "base.yaml": code.partition("#")[2]})
    command = {"Makefile": ["make"], "justfile": ["just"]}.get(name, ["sh", name])
    text = config_of(command).inputs(tmp_path / "run").text()
    assert changed(text) == []
    monkeypatch.setenv("GAIN", "2")
    assert changed(text) == ["$GAIN"]


def test_variables_that_scripts_and_recipes_set_are_their_own(project, tmp_path, monkeypatch):
    project(
        {
            "Makefile": "export GAIN := 1\nall:\n\ttrain $(GAIN) $(CURDIR) $(MAKE)",
            "train.sh": "GAIN=1; f $GAIN",
        }
    )
    text = config_of(["make"]).inputs(tmp_path / "run").text()
    monkeypatch.setenv("GAIN", "2")
    assert changed(text) == []


ELSEWHERE = {
    "a script of another folder, and what it imports": (["python", "../library/fit.py"], {}),
    "a module of another folder, by PYTHONPATH": (["python", "-m", "fit"], {"PYTHONPATH": "../library"}),
    "an import of the script, by PYTHONPATH": (["python", "train.py"], {"PYTHONPATH": "../library"}),
    "a file of arguments": (["python", "train.py", "@../library/deep.py"], {}),
}


@pytest.mark.parametrize(
    "name", ["Makefile", "justfile", "dvc.yaml", "package.json", "model.gin", "steps.fish"]
)
def test_what_programs_read_without_being_told_to_is_code_of_a_command(project, name):
    project({name: "train 1"})
    before = config_of(["make"]).code()
    project({name: "train 22"})
    assert config_of(["make"]).code() != before


@pytest.mark.parametrize("how", ELSEWHERE)
def test_code_that_a_command_runs_from_elsewhere_is_in_its_key(project, how):
    command, env = ELSEWHERE[how]
    project({"train.py": "import fit", "../library/fit.py": "import deep", "../library/deep.py": "GAIN = 1"})
    before = config_of(command, env=env).code()
    assert config_of(command, env=env).code() == before
    project({"../library/deep.py": "GAIN = -10"})
    assert config_of(command, env=env).code() != before
    folder_code_again.__globals__["_read"].clear()


@pytest.mark.parametrize("name", ["local_settings.py", "generated/__init__.py", "generated/deep.py"])
def test_a_module_that_git_ignores_and_a_script_imports_is_in_its_key(project, name):
    project(
        {
            ".gitignore": "local_settings.py\ngenerated/\n",
            "train.py": "import local_settings\nfrom generated import deep",
            "local_settings.py": "GAIN = 1",
            "generated/__init__.py": "",
            "generated/deep.py": "",
            "generated/unused.py": "",
        }
    )
    subprocess.run(["git", "init", "-q"], check=True)
    before = config_of(["python", "train.py"]).code()
    project({"generated/unused.py": "GAIN = 1"})
    assert config_of(["python", "train.py"]).code() == before
    project({name: "GAIN = -10"})
    assert config_of(["python", "train.py"]).code() != before
    folder_code_again.__globals__["_read"].clear()


@pytest.mark.parametrize(
    "argument", ["x" * 5000, "~nobody_at_all/x", "a\nb", "../", "/dev/null", "/etc/passwd"]
)
def test_an_argument_that_is_no_file_of_ones_own_is_no_input(project, tmp_path, argument):
    project({"train.py": ""})
    assert config_of(["python", "train.py", argument]).inputs(tmp_path / "run").text() == ""


# --- studies ----------------------------------------------------------------------------------------------------------

FIT = """
import json
import random
from pathlib import Path

def train(config, seed):
    gain = json.loads(Path("gain.json").read_text())
    yield {"accuracy": 0.5 + gain * config["x"] + random.Random(f"{seed}{config}").gauss(0, 0.001)}
"""

STUDY = """
study: inputs
train: fit_of_inputs:train
baseline: {x: 0}
factors: {x: [1]}
metric: accuracy
margin: 0.01
seeds: 3
"""


def test_results_of_other_inputs_are_not_taken_for_those_of_today(workplace):
    (workplace.root / "fit_of_inputs.py").write_text(FIT)
    (workplace.root / "gain.json").write_text("0.1")
    study = workplace.root / "inputs.yaml"
    study.write_text(STUDY)
    command = ("run", "inputs.yaml", "--executor", "inline", "--allow-import", "fit_of_inputs")
    assert "clearly helps" in workplace.ablate(*command)
    assert "clearly helps" in workplace.ablate(*command)
    (workplace.root / "gain.json").write_text("-0.1")
    said = workplace.ablate(*command, code=2)
    assert "gain.json has changed since 6 finished runs read it" in said
    assert "`data: [gain.json]`" in said
    assert "clearly helps" in workplace.ablate(*command, "--accept-code")
    # As it was, it is known again.
    (workplace.root / "gain.json").write_text("0.1")
    assert "6 of them done" in workplace.ablate(*command)
    (workplace.root / "gain.json").write_text("-0.1")
    study.write_text(STUDY + "data: [gain.json]\n")
    assert "clearly hurts" in workplace.ablate(*command)
    # More seeds beside those of other inputs would mix the two.
    study.write_text(STUDY.replace("seeds: 3", "seeds: 4").replace("study: inputs", "study: more"))
    assert "gain.json has changed" in workplace.ablate(*command, code=2)
    assert "Runs that read different contents of gain.json" in workplace.ablate(*command, "--accept-code")


def test_a_module_that_has_the_name_of_one_without_a_file_is_an_input(tmp_path, monkeypatch):
    """Made by a program and given its file afterwards, or a later one, which may even lie where the earlier lay in memory."""
    monkeypatch.chdir(tmp_path)
    for name in ("filed_later", "made_again"):
        (tmp_path / f"{name}.py").write_text("GAIN = 1\n")
        monkeypatch.setitem(sys.modules, name, None)  # so that it is gone after the test
        del sys.modules[name]
    record = Inputs()
    record.begin()
    module = sys.modules["filed_later"] = types.ModuleType("filed_later")
    for file in (None, str(tmp_path / "made_again.py")):
        sys.modules["made_again"] = types.ModuleType("made_again")
        sys.modules["made_again"].__file__ = file
        text = record.text()
        del sys.modules["made_again"]
        module.__file__ = str(tmp_path / "filed_later.py")
    assert list(json.loads(text)["files"]) == ["filed_later.py", "made_again.py"]


@pytest.mark.parametrize(
    "path", ["/dev/shm/train.npy", "/run/media/me/disk/train.npy", "/data/proc/1", "/home/me/usr/x"]
)
def test_files_of_people_are_not_those_of_the_machine(path):
    assert not inputs.is_of_machine(path)
    assert inputs.is_of_machine("/proc" + path)
