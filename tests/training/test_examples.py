"""The examples in docs/examples: programs of Lightning, Hydra and Transformers that know nothing of ablate, tried by `--try`."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize(
    ("example", "package", "settings"),
    [
        ("hydra", "hydra", ("epochs=2",)),
        # Their imports take ten seconds.
        pytest.param("lightning", "lightning", ("epochs=2",), marks=pytest.mark.slow),
        pytest.param("transformers", "transformers", ("epochs=2",), marks=pytest.mark.slow),
    ],
)
def test_the_metrics_of_an_example_are_found(example, package, settings, workplace):
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed: pip install {package}")
    shutil.copytree(EXAMPLES / example, example)
    sets = [option for each in settings for option in ("--set", each)]
    output = workplace.ablate("run", f"{example}/study.yaml", "--try", "--allow-command", *sets)
    for metric in ("val/accuracy", "train/loss"):
        assert f"{metric}: found 2 times" in output, output
    # Nothing but the folder of the run was written to.
    assert not [path for path in Path(example).rglob("*") if path.suffix in (".csv", ".log")]
