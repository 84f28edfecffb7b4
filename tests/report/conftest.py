"""Reports that several tests look at, made once."""

import pytest
import report_examples

from ablate.report import render
from ablate.report.summary import summarise


@pytest.fixture(scope="session")
def material():
    return report_examples.material()


@pytest.fixture(scope="session")
def summary(material):
    return summarise(material)


@pytest.fixture(scope="session")
def page(summary):
    return render.html(summary)


@pytest.fixture(scope="session")
def hostile_page():
    return render.html(summarise(report_examples.hostile()))
