"""What was predicted beside what was measured: a dot for each held-out run, where the numbers say."""

import re
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient

from service.dashboard.charts import scatter
from tests.service.dashboard.browsing import Open
from tests.service.dashboard.store import Store, evidence

THREE = {"books": 2_000_000, "code": 3_000_000, "web": 5_000_000}
RUNS = 16


@pytest.fixture
def solved(store: Store) -> str:
    found = store.optimization(
        store.domain_set("trio", THREE),
        "succeeded",
        ["succeeded"] * RUNS,
        tokens=THREE,
        proposal={**evidence(THREE), "notes": ["The slice law was not fitted because 3 runs measured it."]},
    )
    store.on_lines(found)
    store.launch(found, "natural", "succeeded")
    store.launch(found, "proposed", "succeeded", 0.03)
    return found


def test_points_lie_to_scale_up_and_across() -> None:
    plot = scatter([(0.0, 10.0), (1.0, 20.0), (0.5, None)])
    assert len(plot.points) == 2
    places = [plot.place(*point) for point in plot.points]
    across, up = ([float(place[side].rstrip("%")) for place in places] for side in (0, 1))
    assert across[0] < across[1], "more is to the right"
    assert up[0] > up[1], "and higher up"
    assert across[1] - across[0] == pytest.approx(100 / 1.12, abs=0.01), "6% are left on either side"
    square = scatter([(0.0, 1.0), (4.0, 3.0)], is_square=True)
    assert square.across == square.up, "so that on the diagonal both are alike"


def test_every_held_out_run_is_drawn_and_said(client: TestClient, solved: str) -> None:
    held = client.get(f"/v1/optimizations/{solved}/held-out").json()
    assert held["runs"] == RUNS
    html = client.get(f"/optimizations/{solved}/trust").text
    for name in ("predicted", "residuals", "among", "task-1"):
        found = re.search(rf'<svg class="chart" id="{name}".*?</svg>\s*(?=</figure>)', html, re.DOTALL)
        assert found is not None, name
        drawn = ElementTree.fromstring(found[0])
        assert len(drawn.findall(".//circle[@class='run']")) == RUNS
        assert drawn.find("title") is not None
        assert drawn.find("desc") is not None
    words = re.sub(r"<[^>]+>|\s+", " ", html)
    assert f"{held['objective']['measured'][0]:.4f}" in words
    assert f"rank correlation of {held['objective']['rank_correlation']:.2f}" in words
    assert "was not fitted because 3 runs measured it" in words
    assert "launches, of their tasks" in words


def test_an_answer_without_runs_says_why_nothing_is_shown(client: TestClient, store: Store) -> None:
    found = store.optimization(store.domain_set("trio", THREE), "queued", tokens=THREE)
    answer = client.get(f"/optimizations/{found}/trust")
    assert answer.status_code == 200
    assert 'class="verdict open"' in answer.text
    assert client.get("/v1/optimizations/opt_none/held-out").status_code == 404
    assert client.get("/optimizations/opt_none/trust").status_code == 404


def test_it_is_reached_from_the_answer(open_page: Open, solved: str) -> None:
    page = open_page(f"/optimizations/{solved}")
    page.get_by_role("link", name="Every held-out run against its prediction").click()
    assert page.get_by_role("img", name="Predicted against measured, the objective").is_visible()
    page.get_by_text("Every number drawn").click()
    assert page.get_by_role("region", name="Held-out runs, predicted and measured").is_visible()
