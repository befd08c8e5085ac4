"""The first page: recent decisions, and finding what has a name."""

import re

from fastapi.testclient import TestClient

from service.dashboard.home import MOST_DECIDED
from store.tables import MixtureRow, Optimization
from tests.service.dashboard.browsing import Open
from tests.service.dashboard.store import TOKENS, Store, evidence, natural


def _words(html: str, section: str) -> str:
    found = re.search(rf'<section id="{section}".*?</section>', html, re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[0])) if found else ""


def _solved(store: Store, name: str, finished_at: float, gain: float = 0.0412) -> str:
    states, told = ["succeeded"] * 3, evidence(TOKENS, gain)
    found = store.optimization(store.domain_set(name), "succeeded", states, proposal=told)
    with store.database.write() as session:
        session.get_one(Optimization, found).finished_at = finished_at
    return found


def test_a_recent_decision_has_what_it_gains_loses_and_costs(client: TestClient, store: Store) -> None:
    good = _solved(store, "library", 1_700_000_100.0)
    bad = _solved(store, "archive", 1_700_000_200.0, -0.1)
    store.optimization(store.domain_set("waits"), "queued")
    html = client.get("/").text
    assert all(f'href="/optimizations/{one}"' in html for one in (good, bad))
    words = _words(html, "decided")
    assert words.index("archive") < words.index("library"), "the newest first"
    assert "arithmetic, python-docs, short-stories" in words
    # three runs that each kept a worker busy for 8 seconds, by the store
    assert "+0.041 BPB nothing 24 s" in words
    # of the tasks, each (index + 0.5) times as much, the last one, which is outside the objective
    assert "held-out/novels −0.350 BPB" in words
    assert "waits" not in words


def test_the_newest_decisions_are_enough(client: TestClient, store: Store) -> None:
    for number in range(MOST_DECIDED + 2):
        _solved(store, f"set-{number}", 1_700_000_000.0 + number)
    named = re.findall(r"set-(\d+)", _words(client.get("/").text, "decided"))
    assert [int(number) for number in named] == list(range(MOST_DECIDED + 1, 1, -1))


def test_no_decision_yet_is_no_section(client: TestClient, store: Store) -> None:
    store.domain_set()
    assert 'id="decided"' not in client.get("/").text


def test_names_are_found_whatever_their_case_and_ids_as_they_are(client: TestClient, store: Store) -> None:
    revision = store.domain_set("Web-Pool")
    store.domain_set("other_100")
    found = store.optimization(revision, "queued")
    with store.database.write() as session:
        mixture = MixtureRow(revision_id=revision, kind="custom", name="less-web", weights=natural(TOKENS))
        session.add(mixture)
        session.flush()
        made = mixture.id

    def named(words: str) -> list[str]:
        answer = client.get("/", params={"q": words})
        assert answer.status_code == 200
        return re.findall(r'<th scope="row"><a href="([^"]+)"', answer.text)

    both = ["/domain-sets/Web-Pool", f"/optimizations/{found}", f"/mixtures/{made}/export?format=csv"]
    assert named(" WEB ") == both
    assert named(found) == [both[1]]
    assert named(made) == [both[2]]
    assert named("r_1") == ["/domain-sets/other_100"], "an underscore is an underscore"
    assert named("%") == named("o_h") == named("<b>") == []
    assert "Nothing has that in its name" in client.get("/?q=%25").text
    assert "&lt;b&gt;" in client.get("/?q=<b>").text
    assert client.get("/", params={"q": "x" * 201}).status_code == 422
    for path in both:
        assert client.get(path).status_code == 200, path


def test_one_finds_without_scripts(open_page: Open, store: Store) -> None:
    store.domain_set("library")
    page = open_page("/", java_script_enabled=False)
    page.get_by_label("Find a domain set, an optimization or a mixture").fill("libr")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Found by “libr”").wait_for()
    page.get_by_role("link", name="library").click()
    assert page.get_by_role("heading", name="library").is_visible()
    page.goto("/?q=nowhere")
    page.get_by_role("link", name="Everything").click()
    assert page.get_by_role("heading", name="Domain sets").is_visible()
