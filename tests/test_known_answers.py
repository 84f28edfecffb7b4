"""A study whose answers are known before it runs: it guards the whole of the instrument, from the images to the verdicts."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "verdicts.md").read_text()
SECTION = PAGE.partition("## A study with a known answer\n")[2]

# Written down before the study was run for the first time.
EXPECTED = {
    "data.args.shuffled=0.2": {"hurts"},  # a fifth of the labels taught wrong
    "training.epochs=1": {"hurts"},  # a tenth of the training
    "training.epochs=16": {"helps", "no practical effect", "inconclusive"},  # twice the training does no harm
}


@pytest.mark.slow
def test_the_instrument_finds_what_is_there_and_nothing_else(workplace):
    [code] = re.findall(r"^```python\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)[:1]
    [study] = re.findall(r"^```yaml\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)[:1]
    Path("known.py").write_text(code)
    Path("known.yaml").write_text(study.replace("[0.2]", "[0.2, 0.0001]"))
    # A ten-thousandth of 1,100 labels is none: the same data, which cannot be compared with themselves.
    refused = workplace.ablate("run", "known.yaml", "--allow-import", "known", code=2)
    assert "are the same run: same settings, same data" in refused
    Path("known.yaml").write_text(study)
    workplace.ablate("run", "known.yaml", "--allow-import", "known", "--quiet")
    told = workplace.ablate("report", "known", "--format", "json")
    found = json.loads(told[told.index("{\n") : told.rindex("\n}") + 2])
    assert found["runs"]["failed"] == found["runs"]["diverged"] == found["runs"]["missing"] == 0
    verdicts = {arm["arm"]: arm["verdict"] for arm in found["arms"]}
    assert verdicts.keys() == EXPECTED.keys()
    assert {arm: verdict for arm, verdict in verdicts.items() if verdict not in EXPECTED[arm]} == {}
    # The baseline against itself on other seeds: its interval holds 0.
    low, high = found["aa"]["ci"]
    assert low < 0 < high
    sys.modules.pop("known", None)
