"""The table of runs and a run's page."""

import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.dashboard.runs import ROWS, Asked, RunRow, arranged, best_of
from store.tables import Metric, Run
from tests.service.dashboard.store import Store

NAMES = re.compile(r'<a href="/runs/\w+">(run \d+)</a></th>')


def row(index: int, objective: float | None, state: str = "succeeded") -> RunRow:
    return RunRow(f"run_{index}", index, f"run {index}", state, 1, None, None, 60.0 - index, objective)


ROWS_OF_FIVE = [row(0, 2.5), row(1, None, "failed"), row(2, 2.1), row(3, 2.1), row(4, 3.0)]


@pytest.mark.parametrize(
    ("asked", "indices"),
    [
        (Asked(), [0, 1, 2, 3, 4]),
        (Asked(sort="-index"), [4, 3, 2, 1, 0]),
        (Asked(sort="objective"), [2, 3, 0, 4, 1]),
        (Asked(sort="-objective"), [4, 0, 2, 3, 1]),
        (Asked(sort="seconds"), [4, 3, 2, 1, 0]),
        (Asked(state="failed"), [1]),
        (Asked(q=" RUN 3"), [3]),
        (Asked(q="run_4"), [4]),
        (Asked(q="none"), []),
    ],
)
def test_rows_come_as_asked_and_what_has_no_number_last(asked: Asked, indices: list[int]) -> None:
    assert [one.index for one in arranged(ROWS_OF_FIVE, asked)] == indices


def test_the_best_is_the_first_of_the_lowest() -> None:
    assert best_of(ROWS_OF_FIVE) == ROWS_OF_FIVE[2]
    assert best_of([row(0, None)]) is None


def test_a_link_keeps_what_was_asked_but_the_page() -> None:
    asked = Asked(sort="objective", state="failed", q="a b&c", page=7)
    assert asked.turned("objective") == "?sort=-objective&state=failed&q=a+b%26c"
    assert asked.link(page=8).endswith("&page=8")
    assert Asked().turned("index") == "?sort=-index"


def test_the_table_has_pages_and_marks_the_best(client: TestClient, store: Store) -> None:
    states = ["succeeded"] * (ROWS + 5) + ["failed"] * 2
    path = f"/optimizations/{store.optimization(store.domain_set(), 'succeeded', states)}/runs"
    first = client.get(path).text
    assert NAMES.findall(first) == [f"run {index}" for index in range(ROWS)]
    assert NAMES.findall(client.get(f"{path}?page=2").text) == [f"run {i}" for i in range(ROWS, ROWS + 7)]
    assert NAMES.findall(client.get(f"{path}?page=99").text)[0] == f"run {ROWS}", "the last there is"
    assert NAMES.findall(client.get(f"{path}?state=failed").text) == ["run 105", "run 106"]
    best_first = client.get(f"{path}?sort=objective").text
    # the store measures 2.4 + 0.013 (7 position mod 11): the lowest where the position is a multiple of 11
    assert NAMES.findall(best_first)[:3] == ["run 0", "run 11", "run 22"]
    assert best_first.count(">best</span>") == 1
    assert client.get(f"{path}?sort=colour").status_code == 422


def test_a_runs_page_has_its_weights_curves_and_what_went_wrong(client: TestClient, store: Store) -> None:
    found = store.optimization(store.domain_set(), "succeeded", ["succeeded", "failed"])
    with store.database.write() as session:
        done, failed = session.scalars(select(Run).order_by(Run.position)).all()
        done.result = {**(done.result or {}), "realised_tokens": {"law": 1, "novels": 3}}
        for step, value in ((10, 5.5), (20, 4.25)):
            session.add(
                Metric(run_id=done.id, step=step, task="training/loss", tokens=step * 1024, value=value)
            )
        paths = f"/runs/{done.id}", f"/runs/{failed.id}"
    html = client.get(paths[0]).text
    assert f'href="/optimizations/{found}/runs"' in html
    assert re.search(r"novels</th><td[^>]*>[\d.]+%</td><td[^>]*>75\.?0*%", html)
    assert all(drawn in html for drawn in ("5.5", "4.25", "<polyline"))
    assert f'href="/v1{paths[0]}/model"' in html
    assert "The loss is not a number after step 211." in client.get(paths[1]).text
    assert client.get("/runs/run_none").status_code == 404


@pytest.mark.long
def test_ten_thousand_runs_are_a_small_page(client: TestClient, store: Store) -> None:
    found = store.optimization(store.domain_set(), "succeeded", ["succeeded"])
    store.more_runs(found, 9_999)
    html = client.get(f"/optimizations/{found}/runs?sort=-objective").text
    assert len(html.encode()) < 250_000
    assert "1 to 100 of 10,000" in html
    # the others measure 3 + position / 10^6
    assert NAMES.findall(html)[:2] == ["run 9999", "run 9998"]
