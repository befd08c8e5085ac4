"""What if the weights were others: they keep their sum, and the page says what the API predicts of them."""

import html
import re
from collections import Counter
from collections.abc import Callable
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from service.dashboard.decision import gain_words
from service.dashboard.what_if import Asked, shared
from service.tokens import Scope, create_token
from store.problems import Invalid
from store.settings import Settings
from store.tables import Launch, MixtureRow, Optimization
from tests.service.dashboard.browsing import Open
from tests.service.dashboard.store import Store, evidence

BASE = {"web": 0.5, "code": 0.3, "books": 0.2}
THREE = {"books": 2_000_000, "code": 3_000_000, "web": 5_000_000}
RUNS = 16
MOST_OF_A_KIND = 2
Read = Callable[[str], str]


@pytest.fixture
def solved(store: Store, settings: Settings) -> str:
    """An optimization over three domains, of runs that a law can be learned from and tasks that are there."""
    revision = store.domain_set("trio", THREE)
    found = store.optimization(
        revision, "succeeded", ["succeeded"] * RUNS, tokens=THREE, proposal=evidence(THREE)
    )
    store.on_lines(found)
    path = settings.data_directory / "corpora" / "task.jsonl"
    path.write_text("".join(f'{{"context": "{n} and ", "continuation": "{n + 1}"}}\n' for n in range(20)))
    with store.database.write() as session:
        row = session.get_one(Optimization, found)
        tasks = [{**task, "path": str(path)} for task in row.settings["tasks"]]
        row.settings = {**row.settings, "tasks": tasks}
    return found


def said(page_text: str) -> str:
    """The sentence in the page's live region."""
    found = re.search(r'<p id="said".*?</p>', page_text, re.DOTALL)
    assert found is not None
    return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split())


def test_what_is_typed_stays_and_the_others_share_the_rest_as_before() -> None:
    assert shared(BASE, {}) == pytest.approx(BASE)
    assert shared(BASE, {"web": "60"}) == pytest.approx({"web": 0.6, "code": 0.24, "books": 0.16})
    assert shared(BASE, {"web": "60%", "code": "40"}) == pytest.approx(
        {"web": 0.6, "code": 0.4, "books": 0.0}
    )
    assert shared(BASE, {"web": "33.33", "code": "33.33", "books": "33.33"})["web"] == pytest.approx(1 / 3)
    onto_nothing = shared({"web": 1.0, "code": 0.0, "books": 0.0}, {"web": "50"})
    assert onto_nothing == pytest.approx({"web": 0.5, "code": 0.25, "books": 0.25})
    assert sum(shared(BASE, {"web": "1e-7"}).values()) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ({"law": "1"}, "no domain 'law'"),
        ({"web": "lots"}, "web: 'lots' is not a number"),
        ({"web": "12,5"}, "web: '12,5' is not a number"),
        ({"web": "-1"}, "web: -1 is not between 0 and 100"),
        ({"web": "70", "code": "40"}, "110.00%, over 100"),
        ({"web": "50", "code": "20", "books": "20"}, "90.00%, not 100"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_words(typed: dict[str, str], complaint: str) -> None:
    with pytest.raises(Invalid, match=re.escape(complaint)):
        shared(BASE, typed)


def test_a_link_holds_what_was_typed_and_nothing_else() -> None:
    asked = Asked(start="in-use", typed={"web:news & <more>": "12.5"}, beside=("natural",))
    assert asked.link == "?start=in-use&w%3Aweb%3Anews+%26+%3Cmore%3E=12.5&b%3Anatural=on"


def test_the_page_says_what_the_api_predicts(client: TestClient, solved: str) -> None:
    answer = client.post(
        "/v1/mixtures:evaluate",
        json={
            "optimization_id": solved,
            "mixtures": [
                {"name": "mine", "weights": shared({n: t / 1e7 for n, t in THREE.items()}, {"code": "60"})}
            ],
        },
    )
    objective = answer.json()["mixtures"][0]["objective"]
    path = f"/optimizations/{solved}/what-if?start=natural&w:code=60&b:proposed=on"
    text = client.get(path).text
    assert gain_words(objective["gain"], objective["gain_interval"], "BPB") in said(text)
    assert "against proposed" in said(text)
    assert said(client.get(path.replace("what-if?", "what-if/answer?")).text) == said(text).replace(
        'role="status"', ""
    )
    assert re.search(r'name="w:code" value="60"', text)


def test_what_cannot_be_predicted_leaves_the_form_and_says_why(client: TestClient, solved: str) -> None:
    text = client.get(f"/optimizations/{solved}/what-if?w:code=80&w:web=30").text
    assert "110.00%, over 100" in said(text)
    assert 'name="w:web" value="30"' in text
    assert "Predicted" not in text


def test_other_parameters_and_other_mixtures_are_refused_by_name(client: TestClient, solved: str) -> None:
    path = f"/optimizations/{solved}/what-if"
    assert client.get(f"{path}?strat=natural").status_code == 422
    assert client.get(f"{path}?w:code=1&w:code=2").status_code == 422
    assert client.get(f"{path}?start=mix_none").status_code == 404
    assert client.get(f"{path}?b:mix_none=on").status_code == 404


def test_a_reader_may_ask_and_is_offered_nothing_that_is_refused(
    client: TestClient, store: Store, solved: str
) -> None:
    with store.database.write() as session:
        secret = create_token(session, "looks-only", [Scope.READ])
    reader = {"Authorization": f"Bearer {secret}"}
    for query in ("", "?w:code=60"):
        answer = client.get(f"/optimizations/{solved}/what-if{query}", headers=reader)
        assert "Predicted" in answer.text
        assert 'method="post" action="/do' not in answer.text


def test_a_weight_is_slid_saved_and_launched_in_a_browser(open_page: Open, store: Store, solved: str) -> None:
    page = open_page(f"/optimizations/{solved}", viewport={"width": 1440, "height": 900})
    page.get_by_role("link", name="What if …").click()
    sentence = page.locator("#said")
    before = sentence.inner_text()
    slider = page.get_by_role("slider", name="code, percent")
    slider.focus()
    slider.press("Home")
    page.get_by_text("against proposed").wait_for(state="detached")
    page.wait_for_function("before => document.getElementById('said').innerText !== before", arg=before)
    assert page.get_by_label("code, keep at, percent").input_value() == "0"
    weights = page.locator("td.weight").all_inner_texts()
    assert sum(float(text.rstrip("%")) for text in weights) == pytest.approx(100, abs=0.02)
    page.get_by_label("web, keep at, percent").fill("60")
    assert page.get_by_role("slider", name="books, percent").input_value() == "40"
    page.wait_for_url("**w%3Aweb=60**")
    page.wait_for_function("() => document.querySelector('[name=body]')?.value.includes('\"web\": 0.6')")
    moved = sentence.inner_text()
    page.reload()
    assert sentence.inner_text() == moved, "the address shows the same view"
    page.get_by_label("Name").fill("mine")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Launch mine").click()
    page.wait_for_url("**/launches/*")
    with store.database.read() as session:
        launch = session.query(Launch).one()
        mixture = session.get_one(MixtureRow, launch.mixture_id)
        assert (mixture.kind, mixture.name) == ("custom", "mine")
        assert mixture.weights == pytest.approx({"books": 0.4, "code": 0.0, "web": 0.6})


def test_it_works_without_javascript(open_page: Open, solved: str) -> None:
    page = open_page(f"/optimizations/{solved}/what-if", java_script_enabled=False)
    page.get_by_label("code, keep at, percent").fill("60")
    page.get_by_label("natural", exact=True).check()
    page.get_by_role("button", name="Predict").click()
    assert "over the natural distribution" in page.locator("#said").inner_text()
    assert page.get_by_label("code, keep at, percent").input_value() == "60"
    assert page.get_by_role("columnheader", name="natural").count() >= 1


def test_the_gain_over_the_mixture_in_use_stands_on_the_first_screen_once_a_law_is_kept(
    client: TestClient, solved: str
) -> None:
    view = client.get(f"/v1/optimizations/{solved}").json()
    weights = {"books": 0.5, "code": 0.3, "web": 0.2}
    made = client.post("/v1/mixtures", json={"domain_set": "trio", "name": "ours", "weights": weights}).json()
    body = {"mixture_id": made["id"], "why": "It is what we have."}
    assert client.post("/v1/domain-sets/trio/adoptions", json=body).status_code == 201

    def figure() -> str:
        found = re.search(r'<div id="over-in-use">.*?</div>', client.get(f"/optimizations/{solved}").text)
        assert found is not None
        return found[0]

    asked = re.search(r'href="([^"]+)"', figure())
    assert asked is not None, "nothing is fitted while a page is waited for"
    words = said(client.get(html.unescape(asked[1])).text)
    question = {"optimization_id": solved, "mixtures": [{"mixture_id": view["mixture_id"]}]}
    against = {"mixture_id": made["id"]}
    (judged,) = client.post("/v1/mixtures:evaluate", json={**question, "against": against}).json()["mixtures"]
    over = judged["over"]["objective"]
    assert over["gain"] != pytest.approx(judged["objective"]["gain"])
    expected = gain_words(over["gain"], over["gain_interval"], "BPB")
    assert f"{expected} over the mixture in use" in words
    assert expected in figure()
    adopted = {"mixture_id": view["mixture_id"], "why": "It is better."}
    assert client.post("/v1/domain-sets/trio/adoptions", json=adopted).status_code == 201
    assert "over-in-use" not in client.get(f"/optimizations/{solved}").text


def test_a_guard_rail_is_asked_for_by_its_button(
    open_page: Open, store: Store, client: TestClient, solved: str
) -> None:
    lost = evidence(THREE, gain=-0.05)
    with store.database.write() as session:
        row = session.query(MixtureRow).filter_by(optimization_id=solved, kind="proposed").one()
        lost["tasks"] = [task for task in lost["tasks"] if task["weight"] > 0]
        row.evidence = {**lost, "objective": row.evidence["objective"]}
    page = open_page(f"/optimizations/{solved}")
    page.locator("#step-guard-rail summary").click()
    page.get_by_role("button", name="Solve again with a guard rail").click()
    page.wait_for_url(lambda url: "/optimizations/" in url and solved not in url)
    made = client.get(f"/v1/optimizations/{page.url.rpartition('/')[2]}").json()
    named = {task["name"] for task in lost["tasks"] if task["gain_interval"][1] < 0}
    assert {rail["task"] for rail in made["settings"]["guard_rails"]} == named
    assert made["settings"]["swarms"]


def test_every_link_of_every_page_leads_somewhere(client: TestClient, store: Store, solved: str) -> None:
    store.launch(solved, "natural", "succeeded")
    store.launch(solved, "proposed", "succeeded", 0.03)
    body = {"domain_set": "trio", "name": "mine", "weights": {"web": 0.2, "code": 0.3, "books": 0.5}}
    stored = client.post("/v1/mixtures", json=body).json()["id"]
    waiting, seen = ["/", f"/optimizations/{solved}/what-if?start={stored}"], dict[str, int]()
    kinds: Counter[str] = Counter()
    while waiting:
        path = waiting.pop()
        kind = re.sub(r"(?<=/)(?=[^/]*\d)[^/?]+", "N", path.partition("?")[0])
        if path in seen or kinds[kind] == MOST_OF_A_KIND:
            continue
        kinds[kind] += 1
        answer = client.get(path)
        seen[path] = answer.status_code
        if answer.headers["content-type"].startswith("text/html"):
            links = map(html.unescape, re.findall(r'<a\b[^>]*\bhref="([^"#]+)', answer.text))
            waiting += [urljoin(path, link) for link in links if not link.startswith(("http", "data:"))]
    untrained = re.compile(r"/v1/runs/\w+/model")  # nothing was trained here, so nothing was kept
    assert {
        path: status for path, status in seen.items() if status >= 400 and not untrained.match(path)
    } == {}
    assert len(kinds) > 15
