"""Reports of the studies in a store: collects what each is made from, writes the pages, and keeps them current."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import plain_files
from ablate.errors import AblateError, DataError, StoreError, StudyError
from ablate.text import counted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ablate.comparisons import Comparisons
    from ablate.report import Material, Tracking
    from ablate.study.record import PlanRecord
    from ablate.tracking.store import Store

FORMATS = ("html", "md", "latex", "csv", "json")

ONE_DOCUMENT = ("csv", "json")
"""Formats in which several studies make one document."""

FOLDER = Path("reports")
"""Where pages go by default."""

READ_EVERY, RELOAD_EVERY = 2.0, 10
"""Seconds after which `watch` reads the store again, and after which a browser loads the page again."""

_NO_OUTPUT = frozenset({".db", ".ipynb", ".journal", ".py", ".sqlite", ".sqlite3", ".toml", ".yaml", ".yml"})
"""Ends of names of studies, code and databases, in whose place nothing is written."""

Notify = Callable[[str], None]
"""Takes a line for people."""


# --- what a report is made from ---------------------------------------------------------------------------------------


def material(store: Store, name: str, plan_id: str | None = None) -> Material:
    """Read everything that the report of a study is made from.

    plan_id: the beginning of an older plan's id; None: the latest plan. Raises StudyError where there is no such plan.
    """
    from ablate.analysis.compare import no_garbage_collection

    with no_garbage_collection():
        return _material(store, name, plan_id)


def _material(store: Store, name: str, plan_id: str | None) -> Material:
    from ablate.analysis import judge
    from ablate.analysis import plan as recorded_plan
    from ablate.analysis.grids import grids
    from ablate.report import Material
    from ablate.tracking.classified import image_results
    from ablate.tracking.frames import plan_frames
    from ablate.tracking.logged_figures import logged_figures
    from ablate.tracking.plans import stored_plan
    from ablate.tracking.runs import counted_runs, damaged_tags

    stored = stored_plan(store, name, plan_id)
    record = stored.record
    if record.judged is not None:
        from ablate.judgements import load

        return load(store, stored).material
    runs = counted_runs(store, record)
    replicates, curves = plan_frames(store, record, runs)
    classified = image_results(store, record, runs)
    curve_grids = grids(curves)
    analysis = judge(recorded_plan.rules(record), replicates, curve_grids, correct=classified.validation)
    return Material(
        record,
        analysis,
        replicates,
        curve_grids,
        classified.confusion,
        stored.environment,
        classified.test,
        classified.truth,
        _test_images(record),
        _server(store, name),
        damaged=(*damaged_tags(runs.values()), *_not_stored(store, name), *classified.damaged),
        figures=logged_figures(store, record, runs),
    )


def _not_stored(store: Store, name: str) -> list[str]:
    from ablate.tracking.rejected import rejections, told

    rejected = rejections(store, name)
    return [told(rejected)] if rejected else []


def comparisons(store: Store, name: str, plan_id: str | None = None) -> Comparisons:
    """Return the verdicts of a study, or of results that were judged under its name. plan_id, errors: as in `material`."""
    from ablate.comparisons import Comparisons
    from ablate.tracking.plans import stored_plan

    stored = stored_plan(store, name, plan_id)
    if stored.record.judged is not None:
        from ablate.judgements import load

        return load(store, stored)
    return Comparisons.of(material(store, name, plan_id))


def _server(store: Store, name: str) -> Tracking | None:
    """Return where the server's own pages are, or None without a server. A password in its address is left out."""
    from urllib.parse import urlsplit

    from ablate.report import Tracking
    from ablate.tracking.plans import experiment_id

    parts = urlsplit(store.uri)
    if parts.scheme not in ("http", "https"):
        return None
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return Tracking(address, experiment_id(store, name))


def _test_images(record: PlanRecord) -> NDArray[Any] | None:
    """Return the test images of the reference where the cache still holds them."""
    from ablate.cache_folder import default_folder
    from ablate.data import cache

    fingerprint = record.arm(record.reference).data.fingerprint
    try:
        entry = cache.entry(fingerprint, default_folder() / "datasets") if fingerprint else None
    except DataError:  # there is no place for a cache
        entry = None
    return None if entry is None else entry.test_images


# --- files ------------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """Write a file, replacing one that is there in a single step; a pipe or a device (/dev/stdout) is written to.

    Raises StudyError where it cannot be written, or may not be replaced.
    """
    check_replaceable(path)
    try:
        if _is_stream(path):
            with path.open("wb") as stream:
                stream.write(text.encode())
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            plain_files.write(path, text.encode())
    except OSError as error:
        # That is what making a folder says where a file lies in its place.
        reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise StudyError(
            f"cannot be written ({reason})", place=str(path), hint="--output names another place"
        ) from None


def _is_stream(path: Path) -> bool:
    """Return whether a path leads to a pipe or a device."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # what is wrong with it is said where it is written
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_replaceable(path: Path, sources: Iterable[str] = ()) -> None:
    """Raise StudyError where writing a file would destroy what is no output: a study, code, a database, one of the sources."""
    try:
        is_there, is_folder = path.is_file(), path.is_dir()
        is_source = is_there and any(Path(source).exists() and path.samefile(source) for source in sources)
    except (OSError, ValueError):  # what is wrong with the name is said where it is written
        return
    if is_there and (is_source or path.suffix.lower() in _NO_OUTPUT):
        raise StudyError(
            "is there already, and would be lost", place=str(path), hint="--output names another file"
        )
    if is_folder:
        raise StudyError("is a folder", place=str(path), hint="--output names a file in it")


def file_for(folder: Path, stem: str, ending: str = "html") -> Path:
    """Return STEM.ENDING in a folder, or STEM~DIGEST.ENDING where a file is there that differs in capitals alone.

    On many file systems such a file is the same one, and would be overwritten. No study has a `~` in its name.
    """
    name = f"{stem}.{ending}"
    try:
        present = {path.name for path in folder.iterdir()}
    except OSError:
        present = set()
    if name not in present and name.casefold() in {other.casefold() for other in present}:
        import hashlib

        name = f"{stem}~{hashlib.sha256(stem.encode()).hexdigest()[:8]}.{ending}"
    return folder / name


def page_for(folder: Path, study: str) -> Path:
    """Return the page of a study's report in a folder that may hold `index.html` and pages of `ablate lr` too.

    study: a name of an experiment, which another program may have made, of any characters.
    """
    if not plain_files.can_name_files(study):
        import hashlib
        import re

        plain = re.sub(r"[^A-Za-z0-9]+", "-", study).strip("-")[:40] or "study"
        return file_for(
            folder, f"{plain}~{hashlib.sha256(study.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        )
    folded = study.casefold()
    is_reserved = folded == "index" or folded.endswith("-lr")
    return file_for(folder, f"{study}~report" if is_reserved else study)


def rate_page_for(folder: Path, study: str) -> Path:
    """Return the page in a folder for the sweep of a study's learning rate."""
    return file_for(folder, f"{study}-lr")


# --- writing reports --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """failing: `STUDY: ARM` for each arm or effect with the verdict that was asked about. unreadable: studies without a report."""

    failing: Sequence[str]
    unreadable: Sequence[str]


def write_reports(
    store: Store,
    plans: Mapping[str, str | None],
    format: str,  # noqa: A002 — as the option
    output: Path | None,
    notify: Notify,
    *,
    fail_on: str | None = None,
) -> Written:
    """Write or print the reports of some studies. Of several, those that cannot be read are named and left out.

    plans: study → the beginning of its plan's id, None for the latest.
    output: a folder, or for one study a file; None: pages go to `reports/`, any other format is printed.
    """
    failing: list[str] = []
    unreadable: list[str] = []

    def collected() -> Iterator[tuple[str, Material]]:
        for name, plan in plans.items():
            try:
                of_study = material(store, name, plan)
            except AblateError as error:
                if len(plans) == 1 or plan is not None:
                    raise
                unreadable.append(name)
                notify(f"error: {error.sentence}")
                continue
            failing.extend(_with_verdict(name, of_study, fail_on))
            yield name, of_study

    names = list(plans)
    if format == "html":
        _write_pages(store, names, collected(), output, notify)
    else:
        _write_texts(names, collected(), format, output)
    return Written(failing, unreadable)


def _with_verdict(name: str, material: Material, verdict: str | None) -> list[str]:
    from ablate.analysis.words import effect_code

    analysis = material.analysis
    verdicts = [(c.arm, c.verdict) for c in analysis.comparisons]
    verdicts += [(effect_code(e.terms), e.verdict) for e in analysis.effects]
    return [f"{name}: {item}" for item, its_verdict in verdicts if its_verdict == verdict]


def _write_pages(
    store: Store,
    names: Sequence[str],
    materials: Iterable[tuple[str, Material]],
    output: Path | None,
    notify: Notify,
    *,
    reload: int | None = None,
) -> None:
    """Write a page for each study and, for several, an index. reload: seconds after which a browser loads a page again."""
    from ablate import report

    entries: list[report.Entry] = []
    if output is None and FOLDER.is_symlink():
        raise StudyError(
            "is a link, which may lead to files that are not yours to overwrite",
            place=str(FOLDER),
            hint=f"remove it, or name the folder: --output {FOLDER.resolve()}",
        )
    folder = FOLDER if output is None else output
    is_folder = output is None or len(names) > 1 or not output.suffix
    for name, material in materials:
        path = page_for(folder, name) if is_folder else folder
        summary = report.summarise(material)
        page = report.html(summary, reload=reload)
        write(path, page)
        if reload is None:
            from ablate.tracking.write import attach_artifact

            # Beside the study file; a store that can only be read is no reason to go without the page.
            with contextlib.suppress(StoreError):
                attach_artifact(store, material.record, "report.html", page.encode())
            notify(f"{path}")
        entries.append(report.Entry(name, summary.question, summary.headline, path.name, summary.tally))
    if len(entries) > 1:
        index = folder / "index.html"
        write(index, report.index_html(entries))
        if reload is None:
            notify(f"{index}")


def _write_texts(
    names: Sequence[str], materials: Iterable[tuple[str, Material]], ending: str, output: Path | None
) -> None:
    """Print or write each study's text. JSON and CSV of several studies are one document, unless they go to a folder."""
    from ablate import report

    writers: dict[str, Callable[[Material], str]] = {
        "json": lambda m: report.json_text(report.verdicts(m)),
        "csv": lambda m: report.csv(report.verdicts(m)),
        "md": lambda m: report.markdown(report.summarise(m)),
        "latex": lambda m: report.latex(report.summarise(m)),
    }
    several = len(names) > 1
    if several and ending in ONE_DOCUMENT and (output is None or output.suffix):
        studies = [report.verdicts(material) for _, material in materials]
        text = report.json_text(studies) if ending == "json" else report.csv(*studies)
        if output is None:
            print(shown(text), end="")
        else:
            write(output, text)
        return
    for name, material in materials:
        text = writers[ending](material)
        if output is None:
            print(shown(text), end="")
        else:
            write(file_for(output, name, ending) if several or output.is_dir() else output, text)


def watch(
    store: Store,
    studies: Mapping[str, str | None],
    output: Path | None,
    notify: Notify,
    recover: Callable[[Store], None],
) -> None:
    """Write the pages again whenever a run ends, as long as one of the studies runs. Ctrl-C ends it.

    studies: study → the beginning of its plan's id, None for the latest. The pages reload themselves in a browser; the caller
    writes the last ones, which don't. recover: called before each
    reading of the store.
    """
    import time

    from ablate.tracking.plans import PlanBeginsError, stored_plan
    from ablate.tracking.runs import counted_runs

    names = list(studies)

    def state() -> list[Any]:
        states: list[Any] = []
        for name, plan in studies.items():
            try:
                stored = stored_plan(store, name, plan)
            except PlanBeginsError:
                states.append((name, "RUNNING", None))
                continue
            except StoreError as error:
                if len(names) == 1:
                    raise
                states.append((name, error.message, []))
                continue
            ended = [(run.run_id, run.end) for run in counted_runs(store, stored.record).values()]
            states.append((stored.record.id, stored.status, ended))
        return states

    def readable() -> Iterator[tuple[str, Material]]:
        for name, plan in studies.items():
            with contextlib.suppress(AblateError):  # it is named when the last pages are written
                yield name, material(store, name, plan)

    written, current = None, state()
    if not any(status == "RUNNING" for _, status, _ in current):
        notify(f"{', '.join(names)}: nothing is running, so the page is written once")
    with contextlib.suppress(KeyboardInterrupt):
        while any(status == "RUNNING" for _, status, _ in current):
            if current != written and any(runs is not None for _, _, runs in current):
                _write_pages(store, names, readable(), output, notify, reload=RELOAD_EVERY)
                ended = sum(len(runs or ()) for _, _, runs in current)
                notify(f"{counted(ended, 'run')} ended; the page reloads itself (Ctrl-C stops watching)")
                written = current
            time.sleep(READ_EVERY)
            recover(store)
            current = state()
