"""The page as a browser has it: drawn, clicked, typed into, printed."""

import shutil
from pathlib import Path

import pytest
import report_examples
from report_examples import ATTACK

from ablate.report import render
from ablate.report.rate_page import page as rate_page
from ablate.report.summary import summarise

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to look at the page with")

PAPER = 680
"""Width of A4 without its margins, in CSS pixels."""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, page, hostile_page):
    place = tmp_path_factory.mktemp("pages")
    (place / "report.html").write_text(page, encoding="utf-8")
    (place / "hostile.html").write_text(hostile_page, encoding="utf-8")
    (place / "long.html").write_text(render.html(summarise(report_examples.hostile("W" * 3000))), "utf-8")
    large = render.html(summarise(report_examples.large()))
    (place / "search.html").write_text(render.html(summarise(report_examples.searched())), encoding="utf-8")
    (place / "large.html").write_text(large, encoding="utf-8")
    (place / "judged.html").write_text(report_examples.judged(), encoding="utf-8")
    (place / "blocks.html").write_text(report_examples.judged_in_blocks(), encoding="utf-8")
    (place / "rates.html").write_text(rate_page(report_examples.rate_sweep(), ATTACK), encoding="utf-8")
    return place


class Visit:
    """A page that was opened, with all that it asked for and complained of."""

    def __init__(self, browser, path: Path, *, width: int = 1440, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        # What the page's policy stops is never sent, though the browser tells of it where it had looked ahead.
        self.page.on(
            "requestfailed",
            lambda request: self.requests.remove(request.url) if request.failure == "csp" else None,
        )
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        self.page.goto(path.as_uri())
        # Not wait_for_function: it evaluates text, which the page's own policy forbids.
        self.page.locator("html[data-ready]").wait_for(state="attached")

    def draw_all(self) -> None:
        """Open what is folded and go past every figure, as a reader does."""
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        for i in range(self.page.locator(".figure").count()):
            figure = self.page.locator(".figure").nth(i)
            figure.scroll_into_view_if_needed()
            sync_api.expect(figure).to_have_attribute("data-drawn", "")

    def column(self, table: str, number: int) -> list[str]:
        return self.page.eval_on_selector_all(
            f"#{table} tbody tr:not([hidden]) > :nth-child({number})",
            "(cells) => cells.map((c) => c.innerText.trim())",
        )


@pytest.fixture(scope="module")
def desk(browser, folder):
    """A page for tests that leave it usable for the next one."""
    opened = Visit(browser, folder / "report.html")
    yield opened
    opened.context.close()


@pytest.fixture
def visit(browser, folder):
    opened = []

    def open_page(name: str = "report", **more) -> Visit:
        opened.append(Visit(browser, folder / f"{name}.html", **more))
        return opened[-1]

    yield open_page
    for each in opened:
        each.context.close()


@pytest.mark.parametrize("name", ["report", "hostile", "long", "search", "rates", "judged", "blocks"])
def test_the_page_is_quiet_draws_every_figure_and_never_scrolls_sideways(visit, name):
    seen = visit(name)
    seen.draw_all()
    if name == "hostile":
        assert seen.page.locator("h1").inner_text() == ATTACK
        assert "</script><script>" in seen.page.locator(".figure").first.text_content()
    drawn = seen.page.eval_on_selector_all(
        ".figure", "(all) => all.every((f) => f.querySelector('.trace, .hm'))"
    )
    assert drawn
    for width in (1440, 768, 390):
        seen.page.set_viewport_size({"width": width, "height": 900})
        sync_api.expect(seen.page.locator("html")).to_have_js_property("scrollWidth", width)
    assert len(seen.requests) == 1
    assert seen.requests[0].startswith("file:")
    assert seen.complaints == []


def test_every_figure_that_is_not_folded_is_drawn_without_scrolling(visit):
    seen = visit()
    unfolded = seen.page.locator(".figure:not(details:not([open]) .figure)")
    folded = seen.page.locator("details:not([open]) .figure")
    sync_api.expect(seen.page.locator(".figure[data-drawn]")).to_have_count(unfolded.count(), timeout=60_000)
    assert folded.count() > 0
    seen.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    last = seen.page.locator("details .figure").last
    assert last.get_attribute("data-drawn") is None
    last.scroll_into_view_if_needed()
    sync_api.expect(last).to_have_attribute("data-drawn", "", timeout=60_000)


def test_on_a_phone_the_names_of_points_stay_in_their_figure_and_clear_of_each_other(visit):
    seen = visit(width=390)
    seen.draw_all()
    boxes = seen.page.evaluate("""() => {
      const figure = [...document.querySelectorAll('.figure')].find((f) => f.layout.annotations?.some((a) => a.name));
      const whole = figure.getBoundingClientRect();
      return [...figure.querySelectorAll('.annotation')].filter((a) => a.style.visibility !== 'hidden').map((a) => {
        const { left, right, top, bottom } = a.getBoundingClientRect();
        return { left: left - whole.left, right: right - whole.left, top, bottom, width: whole.width };
      });
    }""")
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 390
    assert len(boxes) >= 2
    for i, box in enumerate(boxes):
        assert box["left"] >= 0
        assert box["right"] <= box["width"]
        for other in boxes[:i]:
            beside = box["left"] >= other["right"] or other["left"] >= box["right"]
            assert beside or box["top"] >= other["bottom"] or other["top"] >= box["bottom"]


def test_a_table_sorts_by_a_column_and_back(desk):
    head = desk.page.locator("#arms-table thead th").nth(2)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    effects = [float(t.replace("−", "-")) for t in desk.column("arms-table", 3) if t]
    assert effects == sorted(effects)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(t.replace("−", "-")) for t in desk.column("arms-table", 3) if t] == sorted(
        effects, reverse=True
    )
    # The baseline has no effect: it stands last either way.
    assert desk.column("arms-table", 1)[-1] == "Baseline"


def test_runs_are_filtered_by_words_and_by_outcome(desk):
    desk.page.locator("#runs-words").fill("width 128")
    assert set(desk.column("runs-table", 1)) == {"Width 128"}
    assert desk.page.locator("#runs-count").inner_text() == "5 of 60 runs"
    desk.page.locator("#runs-words").fill("")
    desk.page.locator("#runs-outcome").select_option("diverged")
    assert desk.column("runs-table", 1) == ["Learning rate 1"] * 2
    desk.page.locator("#runs-outcome").select_option("")
    assert desk.page.locator("#runs-count").inner_text() == "60 runs"


def test_of_thousands_of_runs_some_are_shown_and_all_are_found(visit):
    seen = visit("large")
    count, rows = seen.page.locator("#runs-count"), seen.page.locator("#runs-table tbody tr")
    sync_api.expect(count).to_have_text("2500 runs")
    assert rows.count() == 200
    seen.page.locator("#runs-more").click()
    assert rows.count() == 400
    seen.page.locator("#runs-words").fill("model.width=256")
    sync_api.expect(count).to_have_text("500 of 2500 runs")
    seeds = seen.page.locator("#runs-table thead th").nth(1)
    seeds.locator("button").click()
    seeds.locator("button").click()
    assert seen.column("runs-table", 2)[:2] == ["499", "498"]
    assert set(seen.column("runs-table", 1)) == {"Width 256"}
    pairs = seen.page.locator("table.pairs tbody tr")
    assert pairs.count() == 5
    assert pairs.nth(1).locator("td").count() == 502
    assert seen.complaints == []


def test_images_are_there_with_words_for_them(desk):
    pictures = desk.page.locator(".thumbnails img")
    assert pictures.count() > 10
    sizes = pictures.evaluate_all("(all) => all.map((i) => i.naturalWidth)")
    assert set(sizes) == {32}
    assert all(t.startswith("image ") for t in pictures.evaluate_all("(all) => all.map((i) => i.alt)"))


def test_the_keyboard_reaches_and_works_everything(visit):
    seen = visit()
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className") == "skip"
    seen.page.locator("#arms-table thead button").nth(2).focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.locator("#arms-table thead th").nth(2).get_attribute("aria-sort") == "ascending"
    unreachable = seen.page.eval_on_selector_all(
        ".scroll, pre", "(all) => all.filter((e) => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"
    )
    assert unreachable == 0


def test_a_verdict_leads_to_its_evidence(desk):
    link = desk.page.locator(".findings a").first
    link.click()
    anchor = link.get_attribute("href")
    shown = desk.page.locator(f"figure:has({anchor}:target) .figure")
    assert "loss by epoch" in shown.get_attribute("aria-label").lower()
    sync_api.expect(shown).to_be_in_viewport()


def test_figures_follow_the_colour_scheme(visit):
    seen = visit(scheme="dark")
    seen.page.locator("#figure-0").scroll_into_view_if_needed()
    tick = seen.page.locator("#figure-0 .ytick text").first
    body = seen.page.locator("body")
    sync_api.expect(tick).to_have_css("fill", "rgb(232, 236, 241)")
    sync_api.expect(body).to_have_css("background-color", "rgb(18, 23, 29)")
    seen.page.emulate_media(color_scheme="light")
    sync_api.expect(tick).to_have_css("fill", "rgb(26, 32, 39)")
    sync_api.expect(body).to_have_css("background-color", "rgb(255, 255, 255)")


def test_figures_fit_again_when_the_window_changes(desk):
    figure = desk.page.locator("#figure-0")
    figure.scroll_into_view_if_needed()
    sync_api.expect(figure).to_have_attribute("data-drawn", "")
    for window in (600, 1440):
        desk.page.set_viewport_size({"width": window, "height": 900})
        width = figure.evaluate("(figure) => figure.clientWidth")
        assert (width < 600) == (window == 600)
        sync_api.expect(figure.locator(".main-svg").first).to_have_attribute("width", str(width))


def test_paper_gets_every_figure_light_and_uncut(visit):
    seen = visit(scheme="dark")
    assert seen.page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    assert seen.page.locator(".figure:not([data-drawn]):not(.folded *)").count() == 0
    assert seen.page.evaluate("document.querySelector('details').open") is False
    seen.page.set_viewport_size({"width": PAPER, "height": 1000})
    seen.page.emulate_media(media="print", color_scheme="dark")
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    rights = "(all) => all.map((s) => s.getBoundingClientRect().right)"
    assert max(seen.page.eval_on_selector_all(".figure .main-svg", rights)) <= PAPER
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= PAPER
    sync_api.expect(seen.page.locator("#figure-0 .ytick text").first).to_have_css("fill", "rgb(26, 32, 39)")
    assert seen.complaints == []
