"""axe-core finds nothing on any page, in light and dark, wide and narrow; and nothing has to be scrolled sideways."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.testclient import TestClient

from store.tables import WorkerRow
from tests.service.conftest import TOKEN
from tests.service.dashboard.browsing import Open
from tests.service.dashboard.store import TOKENS, Store, evidence

SCREENS = {
    "wide and light": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"},
    "narrow and dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


@pytest.fixture
def paths(client: TestClient, store: Store) -> list[str]:
    """The address of every page, with something on it."""
    revision = store.domain_set()
    states = ["succeeded"] * 5
    done = store.optimization(revision, "succeeded", states, proposal=evidence(TOKENS))
    going = store.optimization(revision, "running", ["succeeded", "running", "queued", "failed"])
    lost = store.optimization(revision, "failed", ["failed"] * 4)
    empty = store.optimization(revision, "queued")
    launches = [
        store.launch(done, kind, "succeeded", by) for kind, by in (("natural", 0.0), ("proposed", 0.03))
    ]
    launches.append(store.launch(done, "proposed", "running"))
    with store.database.write() as session:
        session.add(WorkerRow(name="box/0", host="box", device="cpu", process=1, versions={}))
    mixture = client.get(f"/v1/optimizations/{done}").json()["mixture_id"]
    body = {"mixture_id": mixture, "why": "It is measured."}
    assert client.post("/v1/domain-sets/library/adoptions", json=body).status_code == 201
    run = client.get("/v1/runs").json()["items"][0]["id"]
    return [
        *(
            "/",
            "/?q=library",
            "/workers",
            "/domain-sets/library",
            "/domain-sets/library/revise",
            f"/runs/{run}",
        ),
        *("/new/domain-set", "/new/optimization"),
        *(f"/optimizations/{one}" for one in (done, going, lost, empty)),
        *(f"/optimizations/{done}/{rest}" for rest in ("runs", "what-if?b:natural=on", "trust")),
        *(f"/launches/{one}" for one in launches),
        *(f"/mixtures/{mixture}/{rest}" for rest in ("lineage", "export?format=csv&repetition_cap=20")),
    ]


@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing_on_any_page(open_page: Open, paths: list[str], screen: str) -> None:
    page = open_page("/", **SCREENS[screen])
    axe = Axe()
    for path in paths:
        page.goto(path)
        page.evaluate(
            "document.querySelectorAll('main details').forEach((one) => one.setAttribute('open', ''))"
        )
        found = axe.run(page)
        assert found.violations_count == 0, f"{path}\n{found.generate_report()}"


@pytest.mark.parametrize("screen", SCREENS)
def test_no_table_of_a_page_is_cut_off(open_page: Open, paths: list[str], screen: str) -> None:
    page = open_page("/", **SCREENS[screen])
    for path in paths:
        page.goto(path)
        cut = page.evaluate(
            """() => [document.documentElement, ...document.querySelectorAll(".scroll:not(.wide)")]
                .filter((one) => one.scrollWidth > one.clientWidth + 1)
                .map((one) => one.getAttribute("aria-label") ?? "the page")"""
        )
        assert cut == [], path


def test_signing_in_has_nothing_amiss_either(open_page: Open) -> None:
    page = open_page("/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.get_by_label("Token").fill(TOKEN)
