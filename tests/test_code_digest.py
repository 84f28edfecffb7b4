"""The digest of the code that a run goes through: what changes it, and what does not."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from file_times import wait_past

from ablate import cache_folder, code_digest, code_paths
from ablate.config import RunConfig
from ablate.errors import StudyError
from ablate.training.function import FunctionConfig

BASE = RunConfig.parse(
    {"data": {"name": "digits"}, "model": {"name": "cnn", "depth": 2, "width": 8}, "training": {"epochs": 3}}
)


# --- what files do --------------------------------------------------------------------------------------------------


CODE = '''
"""What this is."""
import math

# a comment
class Net:
    """A class."""

    def forward(self, x, *, scale=2.0):
        """A method."""
        return math.tanh(x) * scale if x else None
'''

SAME = {
    "other comments": CODE.replace("# a comment", "# another\n# comment"),
    "another docstring": CODE.replace("A method.", "The method, said otherwise."),
    "no docstrings": CODE.replace('    """A class."""\n', "").replace('        """A method."""\n', ""),
    "another layout": CODE.replace(
        "self, x, *, scale=2.0", "\n        self,\n        x,\n        *,\n        scale=2.0,\n    "
    ),
    "other quotes and brackets": CODE.replace("(x) * scale", "(x)*(scale)").replace("2.0", "2.00"),
    "blank lines": CODE.replace("\n", "\n\n"),
}
EDITED = {
    "a number": CODE.replace("2.0", "2.5"),
    "an integer for a float": CODE.replace("2.0", "2"),
    "an operator": CODE.replace("* scale if", "+ scale if"),
    "a name": CODE.replace("forward", "backward"),
    "a default": CODE.replace("else None", "else 0"),
    "an argument's kind": CODE.replace("x, *, scale", "x, scale"),
    "a decorator": CODE.replace("    def forward", "    @property\n    def forward"),
    "a statement": CODE.replace("        return", "        x = x + 1\n        return"),
    "text that is no docstring": CODE.replace("math.tanh(x) * scale", "'tanh'"),
    "an import": CODE.replace("import math", "import cmath as math"),
}


@pytest.fixture
def digest(tmp_path):
    def of(text: str, name: str = "net.py", folder: str = "a") -> str:
        file = tmp_path / folder / name
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
        code_digest._parsed_file.cache_clear()
        return code_digest.files_digest([file])

    return of


@pytest.mark.parametrize("how", SAME)
def test_the_digest_of_code_ignores(digest, how):
    assert ast.parse(SAME[how])
    assert SAME[how] != CODE
    assert digest(SAME[how]) == digest(CODE)


@pytest.mark.parametrize("how", EDITED)
def test_the_digest_of_code_sees(digest, how):
    assert ast.parse(EDITED[how])
    assert EDITED[how] != CODE
    assert digest(EDITED[how]) != digest(CODE)


def test_the_digest_of_code_does_not_depend_on_where_it_lies(digest):
    assert digest(CODE, folder="a") == digest(CODE, folder="b")


def test_an_edit_is_seen_although_the_file_was_read_before(tmp_path):
    file = tmp_path / "net.py"
    seen = set()
    for value in range(5):
        file.write_text(f"x = {value}")
        seen.add(code_digest.files_digest([file]))
        wait_past(file)
    assert len(seen) == 5


def test_what_is_not_python_counts_byte_by_byte(digest):
    template = "{{ cookie }} = 1  # comment\n"
    assert digest(template) == digest(template)
    assert digest(template) != digest(template.replace("comment", "other"))
    assert digest("x = 1\0") != digest("x = 2\0")


# --- what an earlier command has parsed -------------------------------------------------------------------------------

IMPORTING = """
import importlib
from . import other as another
from package.module import *
__all__ = ["first", "second"]
importlib.import_module(f"models.{name}")
import torch
"""


@pytest.fixture
def parsed_before(tmp_path, monkeypatch):
    """Parse files as a new process does, which may find in the cache what another has parsed."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))

    def of(contents):
        code_digest._kept.cache_clear()
        before = code_digest._ParsedBefore()
        parsed = [before.parsed(content) for content in contents]
        before.keep()
        return parsed

    yield of
    code_digest._kept.cache_clear()


def test_what_was_parsed_before_is_what_parsing_gives(parsed_before, monkeypatch):
    texts = [*SAME.values(), *EDITED.values(), IMPORTING, "{{ no Python", ""]
    package = Path(code_digest.__file__).parent
    files = sorted(package.glob("*.py"))[::3]
    contents = [*(text.encode() for text in texts), *(file.read_bytes() for file in files)]
    parsed = {content: code_digest.parse(content) for content in contents}
    expected = {content: one for content, one in parsed.items() if one.paths == code_paths.CodePaths()}
    assert len(expected) > len(texts)
    assert parsed_before([*expected]) == [*expected.values()]
    monkeypatch.setattr(code_digest, "parse", lambda content: pytest.fail("parsed again"))
    assert parsed_before([*expected]) == [*expected.values()]


def test_a_file_that_looks_for_code_by_paths_is_parsed_each_time(parsed_before):
    content = b"import sys\nsys.path.insert(0, 'vendor')\n"
    for _ in range(2):
        (parsed,) = parsed_before([content])
        assert len(parsed.paths.first) == 1


@pytest.mark.parametrize("damage", ["cut", "other digests", "older code", "nothing", "a folder"])
def test_what_cannot_be_read_of_it_is_parsed_again(parsed_before, tmp_path, damage):
    contents = [CODE.encode(), IMPORTING.encode()]
    expected = parsed_before(contents)
    file = tmp_path / "cache" / "parsed-code.json"
    text = file.read_text()
    if damage == "cut":
        file.write_text(text[:-40])
    elif damage == "other digests":
        file.write_text(text.replace(expected[0].digest, "0" * 64))
    elif damage == "older code":
        cache_folder.keep(file, json.loads(text) | {"by": "another", "files": {}})
    else:
        file.unlink()
        if damage == "a folder":
            file.mkdir()
    assert parsed_before(contents) == expected


# Edits a copy of the package file by file, and says after each which configs have another digest than before.
EDITOR = """
import json, sys
from pathlib import Path
import ablate
from ablate.config import RunConfig

package = Path(ablate.__file__).parent
configs = [RunConfig.parse(tree) for tree in json.loads(sys.argv[1])]
said = [[config.code() for config in configs]]
for name in sys.argv[2:]:
    before = [config.code() for config in configs]
    (package / name).write_text((package / name).read_text() + "\\nEDITED = True\\n")
    said.append([config.code() != old for config, old in zip(configs, before)])
print(json.dumps([str(package), said]))
"""


def test_the_digest_covers_training_and_what_the_model_is_made_of_and_nothing_else(tmp_path):
    package = tmp_path / "ablate"
    shutil.copytree(Path(code_digest.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    mine = [BASE, BASE.override({"model.name": "small_cnn"}), BASE.override({"model.name": "numpy_mlp"})]
    expected = {
        "study/spec.py": [False, False, False],
        "executors/local.py": [False, False, False],
        "data/downloads.py": [False, False, False],
        "models/inception.py": [False, False, False],
        "models/__init__.py": [False, False, False],
        "training/function.py": [False, False, False],
        "training/runs.py": [False, False, False],
        "measuring/probe.py": [False, False, False],
        "models/cnn.py": [True, False, False],
        "models/tutorials.py": [False, True, False],
        "models/shapes.py": [False, True, False],
        "models/numpy_mlp.py": [False, False, True],
        "models/layers.py": [True, True, True],
        "training/builtin/loop.py": [True, True, True],
        "training/builtin/losses.py": [True, True, True],
        "training/builtin/numpy_learner.py": [True, True, True],
        "training/builtin/randomness.py": [True, True, True],
        "data/augment.py": [True, True, True],
        "data/split.py": [True, True, True],
    }
    trees = json.dumps([config.tree() for config in mine])
    command = [sys.executable, "-c", EDITOR, trees, *expected]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    where, (first, *changed) = json.loads(done.stdout)
    assert where == str(package)
    assert first == [config.code() for config in mine], "where the files lie is no part of it"
    assert len(set(first)) == 3
    assert dict(zip(expected, changed, strict=True)) == expected


# --- training of the user's own -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that is on no path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files by their paths; `name.zip/path` into an archive."""
    for name, text in files.items():
        if ".zip/" in name:
            archive, _, inside = name.partition(".zip/")
            with zipfile.ZipFile(folder / f"{archive}.zip", "a") as made:
                made.writestr(inside, text)
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def digest_of(train: str) -> str:
    return FunctionConfig.parse({"train": train}, {}).code()


FIT = "def fit(config, seed):\n    yield {'val/accuracy': helper}\n"

# What lies beside a training `train` → the file that it goes through, and that is changed.
IMPORTED: dict[str, tuple[str, dict[str, str], str]] = {
    "the training itself": ("train:fit", {"train.py": "helper = 1\n" + FIT}, "train.py"),
    "a module beside it": (
        "train:fit",
        {"train.py": "from side import helper\n" + FIT, "side.py": "helper = 1\n"},
        "side.py",
    ),
    "two imports deep": (
        "train:fit",
        {"train.py": "import near\n" + FIT, "near.py": "import far\n", "far.py": "helper = 1\n"},
        "far.py",
    ),
    "a submodule of a package": (
        "train:fit",
        {
            "train.py": "import pack.deep.net\n" + FIT,
            "pack/__init__.py": "",
            "pack/deep/__init__.py": "",
            "pack/deep/net.py": "x = 1\n",
        },
        "pack/deep/net.py",
    ),
    "a submodule imported as a name": (
        "train:fit",
        {"train.py": "from pack import net\n" + FIT, "pack/__init__.py": "", "pack/net.py": "x = 1\n"},
        "pack/net.py",
    ),
    "submodules named as parts of Python are": (
        "train:fit",
        {
            "train.py": "from pack import io, time\n" + FIT,
            "pack/__init__.py": "",
            "pack/io.py": "",
            "pack/time.py": "x = 1\n",
        },
        "pack/time.py",
    ),
    "from . import": (
        "pack.train:fit",
        {"pack/__init__.py": "", "pack/train.py": "from . import net\n" + FIT, "pack/net.py": "x = 1\n"},
        "pack/net.py",
    ),
    "from .. import, two levels up": (
        "pack.deep.train:fit",
        {
            "pack/__init__.py": "",
            "pack/net.py": "x = 1\n",
            "pack/deep/__init__.py": "",
            "pack/deep/train.py": "from ..net import x\n" + FIT,
        },
        "pack/net.py",
    ),
    "relative in a package's own file": (
        "pack:fit",
        {"pack/__init__.py": "from .net import x\n" + FIT, "pack/net.py": "x = 1\n"},
        "pack/net.py",
    ),
    "the package that a module is in": (
        "train:fit",
        {"train.py": "import pack.net\n" + FIT, "pack/__init__.py": "x = 1\n", "pack/net.py": ""},
        "pack/__init__.py",
    ),
    "the package that the training is in": (
        "pack.train:fit",
        {"pack/__init__.py": "x = 1\n", "pack/train.py": FIT},
        "pack/__init__.py",
    ),
    "a helper that is a package": (
        "train:fit",
        {"train.py": "import helper\n" + FIT, "helper/__init__.py": "x = 1\n"},
        "helper/__init__.py",
    ),
    "inside a function": (
        "train:fit",
        {
            "train.py": "def fit(config, seed):\n    import side\n    yield side.made()\n",
            "side.py": "x = 1\n",
        },
        "side.py",
    ),
    "where another is missing": (
        "train:fit",
        {
            "train.py": "try:\n    import nowhere_to_be_found\nexcept ImportError:\n    import side\n" + FIT,
            "side.py": "x = 1\n",
        },
        "side.py",
    ),
    "a star import": (
        "train:fit",
        {"train.py": "from side import *\n" + FIT, "side.py": "helper = 1\n"},
        "side.py",
    ),
    "a star import of submodules": (
        "train:fit",
        {
            "train.py": "from pack import *\n" + FIT,
            "pack/__init__.py": "__all__ = ['net']\n",
            "pack/net.py": "x = 1\n",
        },
        "pack/net.py",
    ),
    "a namespace package": (
        "space.train:fit",
        {"space/train.py": "import space.inner.net\n" + FIT, "space/inner/net.py": "x = 1\n"},
        "space/inner/net.py",
    ),
    "relative in a namespace package": (
        "space.train:fit",
        {"space/train.py": "from .inner import net\n" + FIT, "space/inner/net.py": "x = 1\n"},
        "space/inner/net.py",
    ),
    "imports in a circle": (
        "train:fit",
        {"train.py": "import side\n" + FIT, "side.py": "import train\nx = 1\n"},
        "side.py",
    ),
    "import_module": (
        "train:fit",
        {
            "train.py": "import importlib\nnet = importlib.import_module('nets.small')\n" + FIT,
            "nets/__init__.py": "",
            "nets/small.py": "x = 1\n",
        },
        "nets/small.py",
    ),
    "import_module, relative": (
        "pack.train:fit",
        {
            "pack/__init__.py": "",
            "pack/train.py": "from importlib import import_module\nnet = import_module('.net', __package__)\n"
            + FIT,
            "pack/net.py": "x = 1\n",
        },
        "pack/net.py",
    ),
    "__import__": (
        "train:fit",
        {"train.py": "side = __import__('side')\n" + FIT, "side.py": "x = 1\n"},
        "side.py",
    ),
    "import_module of a computed name": (
        "train:fit",
        {
            "train.py": "from importlib import import_module\n"
            "def fit(config, seed):\n    yield import_module(f'nets.{config[\"net\"]}').run(seed)\n",
            "nets/__init__.py": "",
            "nets/deep/wide.py": "x = 1\n",
        },
        "nets/deep/wide.py",
    ),
    "import_module of any name, in a package": (
        "pack.train:fit",
        {
            "pack/__init__.py": "",
            "pack/train.py": "from importlib import import_module\n"
            "def fit(config, seed):\n    yield import_module(config['net']).run(seed)\n",
            "pack/net.py": "x = 1\n",
        },
        "pack/net.py",
    ),
    "import_module of a name put together": (
        "train:fit",
        {
            "train.py": "import importlib\n"
            "def fit(config, seed):\n    yield importlib.import_module('nets.' + config['net']).run(seed)\n",
            "nets/__init__.py": "",
            "nets/wide.py": "x = 1\n",
        },
        "nets/wide.py",
    ),
    "import_module of a formatted name": (
        "train:fit",
        {
            "train.py": "import importlib\n"
            "def fit(config, seed):\n    yield importlib.import_module('nets.%s' % config['net']).run(seed)\n",
            "nets/__init__.py": "",
            "nets/wide.py": "x = 1\n",
        },
        "nets/wide.py",
    ),
    "import_module of any name, outside a package": (
        "train:fit",
        {
            "train.py": "from importlib import import_module as load\n"
            "def fit(config, seed):\n    yield load(config['net']).run(seed)\n",
            "nets/__init__.py": "",
            "nets/wide.py": "x = 1\n",
        },
        "nets/wide.py",
    ),
    "import_module, relative to a package that is named": (
        "train:fit",
        {
            "train.py": "import importlib\nnet = importlib.import_module('.wide', package='nets')\n" + FIT,
            "nets/__init__.py": "",
            "nets/wide.py": "x = 1\n",
        },
        "nets/wide.py",
    ),
    "__import__ with a list": (
        "train:fit",
        {
            "train.py": "nets = __import__('nets', fromlist=['wide'])\n" + FIT,
            "nets/__init__.py": "",
            "nets/wide.py": "x = 1\n",
        },
        "nets/wide.py",
    ),
    "a folder put on sys.path": (
        "train:fit",
        {
            "train.py": "import sys\nsys.path.insert(0, 'vendor')\nimport clone\n" + FIT,
            "vendor/clone.py": "x = 1\n",
        },
        "vendor/clone.py",
    ),
    "a folder put on sys.path that looks like a namespace package": (
        "train:fit",
        {
            "train.py": "import sys\nsys.path.insert(0, 'clone')\nfrom clone import x\n" + FIT,
            "clone/clone.py": "x = 1\n",
        },
        "clone/clone.py",
    ),
    "a folder put on sys.path, with os.path": (
        "train:fit",
        {
            "train.py": "import os, sys\nHERE = os.path.dirname(os.path.abspath(__file__))\n"
            "sys.path.append(os.path.join(HERE, 'vendor', 'deep'))\n"
            "def fit(config, seed):\n    import clone\n    yield clone.run(seed)\n",
            "vendor/deep/clone.py": "x = 1\n",
        },
        "vendor/deep/clone.py",
    ),
    "a folder put on sys.path, with pathlib": (
        "pack.train:fit",
        {
            "pack/__init__.py": "",
            "pack/train.py": "import sys\nfrom pathlib import Path\nROOT = Path(__file__).resolve().parents[1]\n"
            "sys.path.insert(0, str(ROOT / 'vendor'))\nimport clone\n" + FIT,
            "vendor/clone.py": "import inner\n",
            "vendor/inner.py": "x = 1\n",
        },
        "vendor/inner.py",
    ),
    "folders put on sys.path in a loop": (
        "train:fit",
        {
            "train.py": "import sys\nfor name in ('nothing', 'vendor'):\n    sys.path.append(name)\nimport clone\n"
            + FIT,
            "vendor/clone.py": "x = 1\n",
        },
        "vendor/clone.py",
    ),
    "a folder put on sys.path by a function": (
        "train:fit",
        {
            "train.py": "import sys\ndef add(folder):\n    sys.path.append(folder)\nadd('vendor')\nimport clone\n"
            + FIT,
            "vendor/clone.py": "x = 1\n",
        },
        "vendor/clone.py",
    ),
    "run_path": (
        "train:fit",
        {
            "train.py": "import runpy\nnet = runpy.run_path('nets/wide.py')\n" + FIT,
            "nets/wide.py": "x = 1\n",
        },
        "nets/wide.py",
    ),
    "spec_from_file_location": (
        "train:fit",
        {
            "train.py": "import importlib.util, os\nPLACE = os.path.join(os.path.dirname(__file__), 'nets')\n"
            "spec = importlib.util.spec_from_file_location('wide', os.path.join(PLACE, 'wide.py'))\n" + FIT,
            "nets/wide.py": "import side\n",
            "side.py": "x = 1\n",
        },
        "side.py",
    ),
    "exec of a file": (
        "train:fit",
        {"train.py": "exec(open('side.py').read())\n" + FIT, "side.py": "x = 1\n"},
        "side.py",
    ),
    "a package that walks its modules": (
        "pack.train:fit",
        {
            "pack/__init__.py": "import pkgutil\nnames = [m.name for m in pkgutil.iter_modules(__path__)]\n",
            "pack/train.py": FIT,
            "pack/net.py": "x = 1\n",
        },
        "pack/net.py",
    ),
    "in a zip file": (
        "train:fit",
        {
            "train.py": "from zipped.net import x\n" + FIT,
            "code.zip/zipped/__init__.py": "",
            "code.zip/zipped/net.py": "x = 1\n",
        },
        "code.zip/zipped/net.py",
    ),
    "what is no Python": (
        "train:fit",
        {"train.py": "import template\n" + FIT, "template.py": "{{ x }} = 1\n"},
        "template.py",
    ),
}
IN_ARCHIVES = {how for how, (_, _, changed) in IMPORTED.items() if ".zip/" in changed}


def rewrite(folder: Path, files: dict[str, str], changed: str, text: str) -> None:
    """Write one file anew; an archive with all that it holds."""
    if ".zip/" in changed:
        archive = f"{changed.partition('.zip/')[0]}.zip"
        (folder / archive).unlink()
        write(
            folder,
            {
                name: text if name == changed else old
                for name, old in files.items()
                if name.startswith(archive)
            },
        )
        os.utime(folder / archive, (1, 1))
    else:
        (folder / changed).write_text(text)


@pytest.mark.parametrize("how", IMPORTED)
def test_a_changed_module_that_the_training_imports_changes_the_digest(folder, monkeypatch, how):
    train, files, changed = IMPORTED[how]
    monkeypatch.syspath_prepend(str(folder / "code.zip"))
    write(folder, files)
    before = digest_of(train)
    assert digest_of(train) == before
    rewrite(folder, files, changed, files[changed] + "ADDED = 2\n")
    assert digest_of(train) != before
    rewrite(folder, files, changed, files[changed])
    assert digest_of(train) == before


@pytest.mark.parametrize("how", sorted(IMPORTED.keys() - {"what is no Python"}))
def test_a_comment_in_it_does_not(folder, monkeypatch, how):
    train, files, changed = IMPORTED[how]
    monkeypatch.syspath_prepend(str(folder / "code.zip"))
    write(folder, files)
    before = digest_of(train)
    rewrite(folder, files, changed, f"# a comment\n\n{files[changed]}")
    assert digest_of(train) == before


@pytest.mark.parametrize("how", sorted(IMPORTED.keys() - IN_ARCHIVES))
def test_the_same_code_in_another_folder_has_the_same_digest(folder, monkeypatch, how):
    train, files, _ = IMPORTED[how]
    digests = set()
    for name in ("here", "there"):
        write(folder / name, files)
        with monkeypatch.context() as patch:
            patch.chdir(folder / name)
            patch.setattr(sys, "path", list(sys.path))
            digests.add(digest_of(train))
    assert len(digests) == 1


@pytest.mark.parametrize("how", IMPORTED)
def test_nothing_of_the_users_is_run_to_digest_it(folder, monkeypatch, how):
    train, files, _ = IMPORTED[how]
    monkeypatch.syspath_prepend(str(folder / "code.zip"))
    write(folder, files)
    before = set(sys.modules)
    digest_of(train)
    assert set(sys.modules) - before == set()


NOT_IMPORTED = {
    "a module that nothing imports": "other.py",
    "a data file": "data.csv",
    "a module of an installed package": "lib/site-packages/installed.py",
}


@pytest.mark.parametrize("how", NOT_IMPORTED)
def test_what_the_training_does_not_go_through_or_what_is_no_code_does_not_count(folder, monkeypatch, how):
    monkeypatch.syspath_prepend(str(folder / "lib" / "site-packages"))
    changed = NOT_IMPORTED[how]
    write(folder, {"train.py": "import installed, math, json\n" + FIT, changed: "x = 1\n"})
    before = digest_of("train:fit")
    write(folder, {changed: "x = 2\n"})
    assert digest_of("train:fit") == before


def test_a_training_that_is_installed_counts_itself(folder, monkeypatch):
    place = folder / "lib" / "site-packages"
    monkeypatch.syspath_prepend(str(place))
    write(
        place,
        {
            "installed/__init__.py": "",
            "installed/fit.py": "from . import net\n",
            "installed/net.py": "x = 1\n",
        },
    )
    before = digest_of("installed.fit:fit")
    wait_past(place / "installed" / "net.py")
    write(place, {"installed/net.py": "x = 2\n"})
    assert digest_of("installed.fit:fit") != before


TWO = "def small(config, seed):\n    yield {}\n\n\ndef large(config, seed):\n    yield {}\n"

# Files → two trainings in them that are not the same.
TWO_TRAININGS: dict[str, tuple[dict[str, str], str, str]] = {
    "functions of one file": ({"train.py": TWO}, "train:small", "train:large"),
    "files of one package": (
        {"pkg/__init__.py": "", "pkg/small.py": FIT, "pkg/large.py": FIT},
        "pkg.small:fit",
        "pkg.large:fit",
    ),
    "files of a package that imports both": (
        {
            "pkg/__init__.py": "from pkg import large, small\n",
            "pkg/small.py": f"helper = 1\n{FIT}",
            "pkg/large.py": f"helper = 2\n{FIT}",
        },
        "pkg.small:fit",
        "pkg.large:fit",
    ),
    "files that import each other": (
        {"one.py": f"import two\nhelper = 1\n{FIT}", "two.py": f"import one\nhelper = 2\n{FIT}"},
        "one:fit",
        "two:fit",
    ),
    "a package and a module in it": (
        {
            "pkg/__init__.py": f"from pkg import fit as module\nhelper = 1\n{FIT}",
            "pkg/fit.py": f"import pkg\n{FIT}",
        },
        "pkg:fit",
        "pkg.fit:fit",
    ),
    "files in an archive": (
        {
            "code.zip/zipped/__init__.py": "from zipped import large, small\n",
            "code.zip/zipped/small.py": FIT,
            "code.zip/zipped/large.py": FIT,
        },
        "zipped.small:fit",
        "zipped.large:fit",
    ),
}


@pytest.mark.parametrize("how", TWO_TRAININGS)
def test_two_trainings_are_two_whatever_they_have_in_common(folder, monkeypatch, how):
    files, one, other = TWO_TRAININGS[how]
    monkeypatch.syspath_prepend(str(folder / "code.zip"))
    write(folder, files)
    assert digest_of(one) != digest_of(other)


@pytest.mark.parametrize("name", ["code", "test", "colorsys"])
def test_a_training_with_the_name_of_a_module_of_pythons_own_is_refused(folder, name):
    write(folder, {f"{name}.py": FIT})
    with pytest.raises(StudyError, match="part of Python itself") as caught:
        digest_of(f"{name}:fit")
    assert caught.value.hint == f"give your {name}.py another name: Python's own is found first"


def test_links_that_lead_nowhere_are_no_modules(folder):
    """An editor's lock is one: `.#fit.py`, which leads to a user, a host and a process."""
    write(
        folder,
        {"pkg/__init__.py": "", "pkg/fit.py": f"import importlib\nimportlib.import_module(name)\n{FIT}"},
    )
    before = digest_of("pkg.fit:fit")
    (folder / "pkg" / ".#fit.py").symlink_to("user@host.1234:1700000000")
    (folder / "pkg" / "gone.py").symlink_to("nowhere.py")
    assert digest_of("pkg.fit:fit") == before


def test_a_module_that_appears_later_is_seen(folder):
    write(folder, {"train.py": "try:\n    import side\nexcept ImportError:\n    side = None\n"})
    before = digest_of("train:fit")
    write(folder, {"side.py": "x = 1\n"})
    assert digest_of("train:fit") != before


def test_many_modules_are_digested_once(folder, monkeypatch):
    count = 300
    write(folder, {f"pack/part{i}.py": f"from . import part{i + 1}\nx = {i}\n" for i in range(count)})
    write(folder, {"pack/__init__.py": "", "train.py": "import pack.part0\n" + FIT})
    first = code_digest.training_code("train:fit")
    assert len(first.modules) == count + 2
    monkeypatch.setattr(code_digest, "parse", None)
    monkeypatch.setattr(code_digest, "_find", None)
    assert code_digest.training_code("train:fit") == first


def test_torch_is_known_to_be_needed_wherever_it_is_imported(folder):
    write(folder, {"train.py": "import side\n" + FIT, "side.py": "import numpy\n"})
    assert not code_digest.training_code("train:fit").imports_torch
    write(folder, {"side.py": "import torch.nn\n"})
    assert code_digest.training_code("train:fit").imports_torch


def test_a_file_of_the_users_stands_in_nobodys_way(folder):
    (folder / "queue.py").write_text("raise RuntimeError")
    code_digest.look_in_working_folder()
    assert sys.path[-1] == str(folder)
    assert Path(importlib.util.find_spec("queue").origin).parent != folder


@pytest.mark.parametrize("module", ["numpy", "yaml", "mlflow", "test", "random", "token", "platform"])
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py", "{}/part.py"])
def test_a_module_of_the_users_that_is_never_found_is_said_to_be_so(folder, module, form):
    write(folder, {form.format(module): FIT})
    with pytest.raises(StudyError, match=f"'{module}' is (an installed package|a part of Python)") as caught:
        digest_of(f"{module}:fit")
    assert "another name" in str(caught.value)


def test_names_that_are_assigned_by_each_other_are_not_gone_through_for_ever(folder):
    """Installed packages name parts of strings in such ways; following them all would take hours."""
    names = [f"n{i}" for i in range(16)]
    lines = [f"{a} = os.path.join({b}, {c}) + str({b})" for a in names for b in names for c in names[:4]]
    write(
        folder, {"train.py": "import os, runpy\n" + "\n".join(lines) + "\nrunpy.run_path(n0 + '.py')\n" + FIT}
    )
    tree = ast.parse((folder / "train.py").read_text())
    evaluation = code_paths.code_paths(tree, (folder / "train.py").read_bytes())
    assert evaluation.loads
    assert evaluation.files(str(folder / "train.py")) == ([], True)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("nowhere_to_be_found:fit", "there is no module 'nowhere_to_be_found' to import"),
        ("nowhere_to_be_found.inside:fit", "there is no module 'nowhere_to_be_found' to import"),
        ("pack.nowhere:fit", "there is no module 'pack.nowhere' to import"),
        ("sys:fit", "'sys' is a part of Python itself"),
        ("__main__:fit", "there is no module '__main__' to import"),
    ],
)
def test_training_that_cannot_be_found_is_a_mistake_of_the_study(folder, train, message):
    write(folder, {"pack/__init__.py": ""})
    with pytest.raises(StudyError, match=message):
        digest_of(train)


def test_a_module_without_source_counts_byte_by_byte(folder):
    import numpy.random.mtrand as compiled

    name = f"own_compiled{''.join(Path(compiled.__file__).suffixes)}"
    shutil.copy(compiled.__file__, folder / name)
    before = digest_of("own_compiled:fit")
    with (folder / name).open("ab") as file:
        file.write(b"more")
    assert digest_of("own_compiled:fit") != before


@pytest.mark.parametrize("named", ["'linked'", "ROOT / 'linked'", "sys.argv[0]"])
def test_a_folder_that_is_named_by_a_link_is_looked_in_once(folder, named):
    """It was added again in every round, which never ended; where an expression is unknown, all folders count that the file names."""
    text = (
        f"import sys\nfrom pathlib import Path\nROOT = Path(__file__).parent\nsys.path.append(str({named}))\n"
    )
    write(
        folder,
        {
            "train.py": f"{text}PLACES = ['linked', '/proc/self/fd']\nimport clone\n{FIT}",
            "real/clone.py": "X = 1\n",
        },
    )
    (folder / "linked").symlink_to(folder / "real")
    assert code_digest.training_code("train:fit").modules == ("clone", "train")


COMPUTED = "def fit(config, seed):\n    yield {'val/accuracy': load(config['net'])}\n"
PROJECT = {"pack/__init__.py": "", "nets/small.py": "x = 1\n"}

# How code runs a module or a file whose name it computes, or gives on: `nets/small.py` in all of them.
BY_ANY_NAME: dict[str, str] = {
    "another name of import_module": "import importlib\nload = importlib.import_module\n",
    "partial": "import importlib, functools\nload = functools.partial(importlib.import_module, package=None)\n",
    "map": "import importlib\ndef load(*names):\n    return list(map(importlib.import_module, names))\n",
    "getattr": "import importlib\nload = getattr(importlib, 'import_module')\n",
    "another name of __import__": "import builtins\nload = builtins.__import__\n",
    "a table of names": "import importlib\nNAMES = {'a': 'nets.small'}\ndef load(name):\n    return importlib.import_module(NAMES[name])\n",
    "pydoc": "from pydoc import locate\ndef load(name):\n    return locate(name)\n",
    "resolve_name": "import pkgutil\ndef load(name):\n    return pkgutil.resolve_name(name)\n",
    "find_spec": "import importlib.util as u\ndef load(name):\n    spec = u.find_spec(name)\n    module = u.module_from_spec(spec)\n"
    "    spec.loader.exec_module(module)\n",
    "files of a folder": "import importlib.util as u, pathlib\ndef load(name):\n    for path in pathlib.Path('nets').glob('*.py'):\n"
    "        u.module_from_spec(u.spec_from_file_location(path.stem, path))\n",
    "a path put together": "import runpy\ndef load(name):\n    return runpy.run_path('nets/' + name + '.py')\n",
    "run_path under another name": "from runpy import run_path as load\n",
    "exec of what is read": "def load(name):\n    with open(name) as file:\n        text = file.read()\n    exec(compile(text, name, 'exec'))\n",
    "exec of a path's text": "from pathlib import Path\ndef load(name):\n    exec(Path('nets', name).read_text())\n",
}


@pytest.mark.parametrize("how", BY_ANY_NAME)
def test_where_any_file_of_the_project_may_be_run_all_of_them_count(folder, how):
    write(folder, {**PROJECT, "pack/train.py": BY_ANY_NAME[how] + COMPUTED, "tests/test_it.py": "x = 1\n"})
    write(folder, {"venv/pyvenv.cfg": "", "venv/lib/other.py": "x = 1\n", "own-configs/base.py": "x = 1\n"})
    before = digest_of("pack.train:fit")
    write(folder, {"tests/test_it.py": "x = 22\n", "venv/lib/other.py": "x = 22\n"})
    assert digest_of("pack.train:fit") == before
    write(folder, {"nets/small.py": "x = 22\n"})
    changed = digest_of("pack.train:fit")
    assert changed != before
    write(folder, {"own-configs/base.py": "x = 22\n"})
    assert digest_of("pack.train:fit") != changed


@pytest.mark.parametrize("helper", ["pack/load.py", "load.py"])
def test_it_is_the_project_of_the_training_too_that_counts(folder, monkeypatch, helper):
    write(folder, {f"elsewhere/{helper}": BY_ANY_NAME["a table of names"], "elsewhere/pack/__init__.py": ""})
    module = helper.removesuffix(".py").replace("/", ".")
    write(folder, {"train.py": f"from {module} import load\n" + COMPUTED, "nets/small.py": "x = 1\n"})
    monkeypatch.syspath_prepend(str(folder / "elsewhere"))
    before = digest_of("train:fit")
    write(folder, {"nets/small.py": "x = 22\n"})
    assert digest_of("train:fit") != before


@pytest.mark.parametrize(
    "line",
    [
        "from sys import path\npath.insert(0, 'vendor')",
        "import sys as s\ns.path.append('vendor')",
        "import sys\nplaces = sys.path\nplaces += ['vendor']",
    ],
)
def test_sys_path_under_another_name(folder, line):
    write(folder, {"train.py": f"{line}\nimport clone\n{FIT}", "vendor/clone.py": "x = 1\n"})
    before = digest_of("train:fit")
    write(folder, {"vendor/clone.py": "x = 22\n"})
    assert digest_of("train:fit") != before


def test_a_file_counts_whose_text_is_run_whatever_its_name(folder):
    write(folder, {"train.py": "exec(open('settings.conf').read())\n" + FIT, "settings.conf": "x = 1\n"})
    before = digest_of("train:fit")
    write(folder, {"settings.conf": "x = 22\n", "other.py": "x = 1\n"})
    assert digest_of("train:fit") != before


@pytest.mark.parametrize("reading", ["float(__doc__[2:])", "docopt(__doc__)", "inspect.getdoc(fit)"])
def test_docstrings_count_where_the_code_reads_them(folder, reading):
    texts = [f'"""x={x}"""\nimport inspect\nfrom docopt import docopt\nX = {reading}\n{FIT}' for x in (1, 2)]
    digests = []
    for text in texts:
        (folder / "train.py").write_text(f"{text}# {len(digests)}{'!' * len(digests)}")
        digests.append(digest_of("train:fit"))
    assert digests[0] != digests[1]
