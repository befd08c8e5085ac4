"""The pages in a real browser: signing in, reading without JavaScript, dark, by keyboard, and offline."""

from itertools import pairwise

import pytest
from playwright.sync_api import Browser

from store import jobs
from store.tables import Job
from tests.service.conftest import TOKEN
from tests.service.dashboard.browsing import Open
from tests.service.dashboard.store import TOKENS, Store, evidence


@pytest.fixture
def solved(store: Store) -> str:
    """The path of an optimization with evidence and a measured pair of launches."""
    states = ["succeeded"] * 5
    found = store.optimization(store.domain_set(), "succeeded", states, proposal=evidence(TOKENS))
    store.launch(found, "natural", "succeeded")
    store.launch(found, "proposed", "succeeded", 0.03)
    return f"/optimizations/{found}"


def test_signing_in_leads_where_one_wanted_to_go(browser: Browser, url: str, solved: str) -> None:
    context = browser.new_context(base_url=url)
    page = context.new_page()
    page.goto(solved)
    page.keyboard.type("not the token")  # the field has the focus
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{solved}")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    page.goto(solved)
    assert "/login" in page.url
    context.close()


def test_a_link_leaves_no_token_in_the_address(open_page: Open) -> None:
    page = open_page("/")
    assert TOKEN not in page.url
    assert page.evaluate("document.cookie") == ""
    assert page.get_by_role("heading", name="Overview").is_visible()


def test_all_is_read_without_javascript(open_page: Open, solved: str) -> None:
    page = open_page(solved, java_script_enabled=False)
    headings = (
        *("Adopt", "What gets worse", "What gets better", "What to do next", "Mixture"),
        *("What each task gains", "How far it can be trusted", "What binds it", "Predicted against measured"),
    )
    for heading in headings:
        assert page.get_by_role("heading", name=heading, exact=True).is_visible(), heading
    sources_of_several = 2
    rows = page.get_by_role("region", name="Mixture by domain").get_by_role("row")
    assert rows.count() == len(TOKENS) + sources_of_several + 1
    assert page.get_by_role("button", name="Fold all sources").count() == 0, "it would do nothing"
    page.get_by_text("1 more, measured but not in the objective").click()
    assert page.get_by_role("region", name="Tasks outside the objective").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_light_and_dark(open_page: Open, solved: str, scheme: str) -> None:
    page = open_page(solved, color_scheme=scheme)
    colours = page.evaluate(
        """() => {
            const of = (what, property) => getComputedStyle(document.querySelector(what))[property];
            return { paper: of("body", "backgroundColor"), ink: of("body", "color"), soft: of("dt", "color"),
                     link: of("main a", "color"), good: of(".state-succeeded", "color"),
                     label: of("caption", "color"), better: of("strong.better", "color"),
                     at_cap: of(".at-cap", "color") };
        }"""
    )
    paper = luminance(colours.pop("paper"))
    assert (paper > 0.5) == (scheme == "light")
    for what, colour in colours.items():
        lighter, darker = sorted((paper, luminance(colour)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, f"{what} (WCAG 2.2, 1.4.3)"


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` as WCAG 2.2 defines it."""
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_keyboard_goes_through_the_page_in_reading_order(open_page: Open, solved: str) -> None:
    page = open_page(solved)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    assert skip.evaluate("one => one === document.activeElement")
    assert skip.bounding_box()["x"] >= 0, "it shows itself when it has the focus"
    tops = []
    for _ in range(12):
        page.keyboard.press("Tab")
        tops.append(page.evaluate("document.activeElement.getBoundingClientRect().top + scrollY"))
    line = 20  # pixels: what stands on one line may differ by less
    assert all(after > before - line for before, after in pairwise(tops)), tops
    page.goto(solved)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_the_screen(open_page: Open, solved: str, width: int) -> None:
    page = open_page("/", viewport={"width": width, "height": 800})
    for path in ("/", "/domain-sets/library", solved):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_a_page_of_something_under_way_follows_it(open_page: Open, store: Store) -> None:
    states = ["succeeded", "running", "queued"]
    found = store.optimization(store.domain_set(), "running", states)
    page = open_page(f"/optimizations/{found}")
    sentence = page.get_by_role("status")
    assert "1 of 3 runs done" in sentence.inner_text()
    link = page.get_by_role("navigation").get_by_role("link", name="library")
    link.focus()

    with store.database.write() as session:
        job = session.query(Job).filter_by(owner=found, kind=jobs.PROXY_RUN, position=1).one()
        job.state, job.finished_at = jobs.SUCCEEDED, 1_700_000_009.0

    page.get_by_text("2 of 3 runs done").wait_for()
    assert sentence.get_attribute("aria-live") == "polite"
    assert link.evaluate("one => one === document.activeElement"), "the focus stays where it was"
    assert page.title().startswith("2/3")


def test_the_mixture_is_sorted_searched_and_folded(open_page: Open, solved: str) -> None:
    page = open_page(solved)
    rows = page.locator("#mixture-table tbody tr:not(.source):visible")
    assert rows.count() == len(TOKENS)
    page.get_by_label("Find a domain").fill("python")
    assert rows.count() == 3
    assert page.locator("#mixture-table tr.source:visible").count() == 2
    page.get_by_label("Find a domain").fill("")
    page.get_by_role("button", name="Fold all sources").click()
    alone = [name for name in TOKENS if ":" not in name]
    one_of_its_source = ["encyclopedia:science", "web:news"]
    assert rows.count() == len(alone) + len(one_of_its_source)
    page.get_by_role("button", name="code 4 domains").press("Enter")
    assert rows.count() == len(alone) + len(one_of_its_source) + 4
    page.get_by_role("button", name="Unfold all").click()
    page.get_by_role("button", name="Epochs").click()
    shown = [
        float(text)
        for text in rows.locator("td[data-label=Epochs]").evaluate_all(
            "cells => cells.map((cell) => cell.dataset.value)"
        )
    ]
    assert shown[0] == max(shown)
    assert page.locator("th[aria-sort=descending]").inner_text().strip().startswith("Epochs")


@pytest.mark.parametrize("is_scripted", [True, False])
def test_a_job_is_cancelled_and_a_mixture_adopted_by_keyboard(
    open_page: Open, store: Store, solved: str, is_scripted: bool
) -> None:
    going = store.optimization(store.domain_set("other"), "running", ["running"])
    page = open_page(f"/optimizations/{going}", java_script_enabled=is_scripted)
    page.get_by_text("Cancel …").focus()
    for key in ("Enter", "Tab", "Enter"):
        page.keyboard.press(key)
    page.get_by_text("Retry …").wait_for()
    page.goto(solved)
    page.locator("#step-adopt summary").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Why").fill("It is measured.")
    page.keyboard.press("Enter")
    page.get_by_text("It is measured.").wait_for()
    assert page.get_by_role("button", name="Mark as in use").count() == 0
