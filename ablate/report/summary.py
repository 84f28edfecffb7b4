"""A study's material, summarised: all that its report says, as data."""

from __future__ import annotations

from ablate.analysis.compare import no_garbage_collection
from ablate.report import findings, images, judged, methods, own_figures, runs, sections, tuning, wording
from ablate.report.contents import Summary
from ablate.report.reading import Material, Reading

__all__ = ["Material", "Summary", "summarise"]


@no_garbage_collection()
def summarise(material: Material) -> Summary:
    """Return everything that the report of a study says."""
    if material.record.judged is not None:
        return judged.summarise(material)
    reading = Reading(material)
    rows = findings.rows(reading)
    found_runs = runs.every(reading)
    return Summary(
        study=reading.record.study,
        question=reading.record.question.strip(),
        answer=findings.answer(reading),
        notices=tuple(findings.notices(reading)),
        facts=tuple(findings.facts(reading)),
        metric=reading.rules.metric,
        unit=reading.unit,
        value_unit=reading.value_unit,
        digits=reading.digits,
        value_digits=reading.value_digits,
        axis=findings.axis(reading, rows),
        groups=findings.groups(reading),
        rows=rows,
        cells=tuple(
            findings.raw_row(reading, cell, "arm")
            for cell in reading.analysis.cells
            if cell.arm != reading.rules.reference
        ),
        components=findings.components(reading),
        sections=tuple(sections.sections(reading, rows)),
        costs=findings.costs(reading),
        cost_basis="time" if any(c.cost_is_time for c in reading.analysis.comparisons) else "compute",
        interactions=findings.interactions(reading),
        crossings=findings.crossings(reading),
        confusion=sections.confusion(reading),
        images=images.changes(reading),
        runs=found_runs,
        trouble=runs.troubles(found_runs),
        counts=runs.counts(reading, found_runs),
        methods=methods.methods(reading),
        looks=methods.looks(reading),
        environment=tuple(
            (name, wording.fact(name, value)) for name, value in material.environment.items() if value
        ),
        reproduce=methods.reproduce(reading),
        text=reading.record.text,
        tracking=material.tracking,
        tuning=tuning.part(reading),
        own_figures=own_figures.own_figures(reading),
        direction=reading.rules.direction or "maximize",
        for_paper=methods.for_paper(reading),
        unit_of_n=reading.rules.unit,
    )
