"""What came of a launch: sent as it is measured, read as curves, held against what was predicted."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from store import jobs
from store.engine import Database
from store.series import keep_metrics
from store.settings import Settings, settings_or_exit
from store.tables import Launch, MixtureRow, Run
from tests.service.conftest import TOKEN
from tests.service.dashboard.store import TOKENS, Store, evidence


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    file = tmp_path / "launchers.toml"
    file.write_text(f'[launchers.theirs]\ncommand = ["{sys.executable}", "{{mixture_file}}"]\n')
    return Settings(
        data_directory=tmp_path / "data",
        token=TOKEN,
        launchers=file,
        callback_secret="a-secret-for-tests-only",
        callback_origins="https://hooks.example.com, http://127.0.0.1:9000",
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def launch(client: TestClient, domain_set: dict[str, Any]) -> str:
    """Of a program, measured on one accuracy and one loss."""
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    weights = {"books": 0.2, "web:news": 0.4, "web:forums": 0.4}
    mixture = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "m", "weights": weights}).json()
    tasks = [{"name": "hellaswag", "metric": "accuracy"}, {"name": "c4/bpb", "metric": "lower"}]
    made = client.post(
        "/v1/launches",
        json={"mixture_id": mixture["id"], "tokens": 10_000, "launcher": "theirs", "tasks": tasks},
    )
    assert made.status_code == 202, made.text
    return made.json()["id"]


def test_points_sent_twice_are_there_once_and_the_later_value_counts(client: TestClient, launch: str) -> None:
    body = {
        "points": [
            {"step": 10, "tokens": 1000, "metrics": {"hellaswag": 0.25, "training/loss": 9.5}},
            {"step": 20, "tokens": 2000, "metrics": {"hellaswag": 0.5, "held-out/books": 1.5}},
        ]
    }
    for _ in range(2):
        answer = client.post(f"/v1/launches/{launch}/metrics", json=body)
        assert (answer.status_code, answer.json()) == (200, {"kept": 4, "final": {}})
    body["points"][0]["metrics"] = {"hellaswag": 0.26}
    assert client.post(f"/v1/launches/{launch}/metrics", json=body).status_code == 200
    pages, after = [], ""
    while after is not None:
        address = f"/v1/launches/{launch}/metrics?limit=3" + (f"&after={after}" if after else "")
        page = client.get(address).json()
        pages += [(one["step"], one["task"], one["value"]) for one in page["items"]]
        after = page["next"]
    assert pages == [
        (10, "hellaswag", 0.26),
        (10, "training/loss", 9.5),
        (20, "held-out/books", 1.5),
        (20, "hellaswag", 0.5),
    ]


def test_final_results_are_the_launchs_metrics(client: TestClient, launch: str) -> None:
    address = f"/v1/launches/{launch}/metrics"
    assert client.post(address, json={"final": {"hellaswag": 0.6}}).json()["final"] == {"hellaswag": 0.6}
    headers = {"Idempotency-Key": "one"}
    for _ in range(2):
        answer = client.post(address, json={"final": {"c4/bpb": 1.25}}, headers=headers)
        assert answer.json()["final"] == {"hellaswag": 0.6, "c4/bpb": 1.25}
    assert client.get(f"/v1/launches/{launch}").json()["metrics"] == {"hellaswag": 0.6, "c4/bpb": 1.25}
    other = client.post(address, json={"final": {"c4/bpb": 1.5}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"final": {"piqa": 0.5}}, "unknown_metric", "final.piqa"),
        ({"final": {"training/loss": 0.5}}, "unknown_metric", "final.training/loss"),
        ({"final": {"held-out/law": 0.5}}, "unknown_metric", "final.held-out/law"),
        ({"final": {"hellaswag": 55.0}}, "no_share", "final.hellaswag"),
        (
            {"points": [{"step": 1, "tokens": 1, "metrics": {"c4/bpb": 1.0, "loss": 2.0}}]},
            "unknown_metric",
            "points[0].metrics.loss",
        ),
        ({}, "invalid_request", None),
        (
            {"points": [{"step": -1, "tokens": 1, "metrics": {"c4/bpb": 1.0}}]},
            "invalid_request",
            "points[0].step",
        ),
    ],
)
def test_what_is_none_of_the_launchs_is_named_and_nothing_is_kept(
    client: TestClient, launch: str, body: dict[str, Any], code: str, field: str | None
) -> None:
    answer = client.post(f"/v1/launches/{launch}/metrics", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == code
    if field is not None:
        assert answer.json()["field"] == field
    assert client.get(f"/v1/launches/{launch}/metrics").json()["items"] == []


def test_curves_are_thinned_evenly_to_their_last_point(
    client: TestClient, database: Database, launch: str
) -> None:
    with database.write() as session:
        run = session.query(Run).filter_by(launch_id=launch).one()
        keep_metrics(
            session,
            run.id,
            ({"step": s, "tokens": 100 * s, "task": "training/loss", "value": 1 / s} for s in range(1, 1001)),
        )
        keep_metrics(session, run.id, [{"step": 1000, "tokens": 100_000, "task": "hellaswag", "value": 0.5}])
    items = client.get(f"/v1/launches/{launch}/metrics?points=10").json()["items"]
    assert [one["step"] for one in items if one["task"] == "training/loss"] == list(range(100, 1001, 100))
    assert [one["value"] for one in items if one["task"] == "hellaswag"] == [0.5]
    refused = client.get(f"/v1/launches/{launch}/metrics?points=10&after=5.x")
    assert (refused.status_code, refused.json()["field"]) == (422, "after")


def test_the_built_in_trainer_measures_itself(client: TestClient, database: Database) -> None:
    store = Store(database)
    optimization = store.optimization(store.domain_set(), jobs.SUCCEEDED, proposal=evidence(TOKENS))
    launch = store.launch(optimization, "natural", jobs.RUNNING)
    answer = client.post(f"/v1/launches/{launch}/metrics", json={"final": {"arithmetic": 1.0}})
    assert (answer.status_code, answer.json()["code"]) == (409, "measured_here")


def test_a_pair_of_launches_is_held_against_the_predicted_gains(
    client: TestClient, database: Database
) -> None:
    store = Store(database)
    optimization = store.optimization(store.domain_set(), jobs.SUCCEEDED, proposal=evidence(TOKENS))
    proposed = store.launch(optimization, "proposed", jobs.SUCCEEDED, lower_by=0.03)
    lonely = client.get(f"/v1/launches/{proposed}/comparison").json()
    assert (lonely["against"], lonely["is_final"]) == (None, True)
    assert "launch of the natural mixture" in lonely["note"]
    rows = {row["name"]: row for row in lonely["rows"]}
    assert rows["arithmetic"]["measured"] == pytest.approx(2.07)
    assert rows["arithmetic"]["gain"]["measured"] is None
    natural = store.launch(optimization, "natural", jobs.SUCCEEDED)
    for launch, other in ((proposed, natural), (natural, proposed)):
        found = client.get(f"/v1/launches/{launch}/comparison").json()
        assert (found["against"], found["is_proxy"], found["note"]) == (other, False, None)
        rows = {row["name"]: row for row in found["rows"]}
        gains = {name: rows[name]["gain"] for name in ("arithmetic", "python-docs", "short-stories")}
        assert [gain["measured"] for gain in gains.values()] == pytest.approx([0.03, 0.039, 0.048])
        # Predicted 0.0206, 0.0618 and 0.1030, each within -0.02 and +0.018 of it.
        assert [gain["is_inside"] for gain in gains.values()] == [True, False, False]
        assert rows["objective"]["gain"]["measured"] == pytest.approx(
            0.25 * 0.03 + 0.5 * 0.039 + 0.25 * 0.048
        )
        assert rows["held-out/novels"]["measured"] is None


def test_the_record_says_how_well_predictions_held_and_of_what_they_spoke(
    client: TestClient, database: Database
) -> None:
    store = Store(database)
    pool = store.domain_set()
    empty = client.get("/v1/domain-sets/library/record").json()
    assert (empty["planned"]["launches"], empty["larger"]["median_error"]) == (0, None)
    proposal = evidence(TOKENS)
    proposal["objective"]["gain"], proposal["objective"]["gain_interval"] = 0.06, [0.03, 0.09]
    optimization = store.optimization(pool, jobs.SUCCEEDED, proposal=proposal)
    inside = store.launch(optimization, "proposed", jobs.SUCCEEDED, lower_by=0.03)
    lonely = client.get("/v1/domain-sets/library/record").json()
    assert lonely["larger_launches"] == []
    store.launch(optimization, "natural", jobs.SUCCEEDED)
    found = client.get("/v1/domain-sets/library/record").json()
    assert found["planned"]["launches"] == 0
    # Measured .25 * .03 + .5 * .039 + .25 * .048 = .039, of .03 to .09: .021 / .03 from the middle.
    held = found["larger"]
    assert (held["launches"], held["inside"], held["tasks"], held["tasks_inside"]) == (1, 1, 3, 1)
    assert (held["median_error"], held["median_width"]) == (pytest.approx(0.7), pytest.approx(0.06))
    assert [row["launch_id"] for row in found["larger_launches"]] == [inside]
    with database.write() as session:
        launch = session.get_one(Launch, inside)
        row = session.get_one(MixtureRow, launch.mixture_id)
        target = {"parameters": 1_000_000, "tokens": launch.settings["tokens"]}
        at_target = {"objective": {"gain": 0.2, "interval": [0.1, 0.3]}, "tasks": []}
        row.evidence = {**proposal, "at_target": {**target, **at_target}}
        for run in session.query(Run).where(Run.result.is_not(None)):
            run.result = {**(run.result or {}), "non_embedding_parameters": 1_000_000}
    planned = client.get("/v1/domain-sets/library/record").json()
    assert (planned["planned"]["launches"], planned["planned"]["inside"]) == (1, 0)
    assert planned["larger"]["launches"] == 0
    assert client.get("/v1/domain-sets/none/record").json()["code"] == "domain_set_not_found"


def test_a_launch_of_the_proxies_own_model_is_held_against_the_interval_of_a_proxy_run(
    client: TestClient, database: Database
) -> None:
    store = Store(database)
    proposal = evidence(TOKENS)
    proposal["tasks"][0]["natural_interval"] = [2.05, 2.2]
    proposal["tasks"][1]["natural_interval"] = [2.3, 2.4]
    optimization = store.optimization(store.domain_set(), jobs.SUCCEEDED, proposal=proposal)
    launch = store.launch(optimization, "natural", jobs.SUCCEEDED)
    with database.write() as session:
        row = session.get_one(Launch, launch)
        row.settings = {**row.settings, "size": "nano-0.1M", "tokens": 524_288, "batch_rows": 8}
    found = client.get(f"/v1/launches/{launch}/comparison").json()
    assert found["is_proxy"]
    assert [row["is_inside"] for row in found["rows"][1:4]] == [True, False, None]


def test_of_a_mixture_by_hand_nothing_was_predicted(client: TestClient, launch: str) -> None:
    found = client.get(f"/v1/launches/{launch}/comparison").json()
    assert found["rows"] == []
    assert found["note"]


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("https://hooks.example.com/launches?id=1", True),
        ("https://hooks.example.com:443/", True),
        ("HTTPS://HOOKS.EXAMPLE.COM/", True),
        ("http://127.0.0.1:9000/hook", True),
        ("http://hooks.example.com/", False),
        ("https://hooks.example.com:8443/", False),
        ("https://hooks.example.com.evil.org/", False),
        ("https://evil.org@hooks.example.com/", False),
        ("https://hooks.example.com\\@evil.org/", False),
        ("http://169.254.169.254/latest/meta-data", False),
        ("http://127.0.0.1:8321/", False),
        ("file:///etc/passwd", False),
        ("gopher://127.0.0.1:9000/", False),
        ("https://hooks.example.com/\n", False),
        ("//hooks.example.com/", False),
    ],
)
def test_only_what_the_operator_named_may_be_told(
    client: TestClient, database: Database, launch: str, address: str, is_allowed: bool
) -> None:
    with database.read() as session:
        mixture = session.query(MixtureRow).one().id
    request = {"mixture_id": mixture, "tokens": 10_000, "launcher": "theirs", "callback": address}
    answer = client.post("/v1/launches", json=request)
    if is_allowed:
        assert answer.status_code == 202, answer.text
    else:
        assert (answer.status_code, answer.json()["field"]) == (422, "callback")


def test_a_secret_is_needed_to_tell_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXWRIGHT_CALLBACK_ORIGINS", "https://hooks.example.com")
    with pytest.raises(SystemExit, match="MIXWRIGHT_CALLBACK_SECRET"):
        settings_or_exit()


def test_a_request_with_seeds_is_a_launch_of_each_of_each_budget(client: TestClient, launch: str) -> None:
    mixture = client.get(f"/v1/launches/{launch}").json()["mixture_id"]
    body = {
        "mixture_id": mixture,
        "size": "nano-0.1M",
        "sequence_length": 64,
        "batch_rows": 8,
        "budgets": [65_536, 131_072],
        "seeds": [5, 7],
    }
    items = client.post("/v1/launches", json=body).json()["items"]
    made = [(one["settings"]["tokens"], one["settings"]["seed"]) for one in items]
    assert made == [(65_536, 5), (65_536, 7), (131_072, 5), (131_072, 7)]
    assert len({one["run_id"] for one in items}) == 4


def test_a_request_with_budgets_is_a_launch_of_each_all_or_none(client: TestClient, launch: str) -> None:
    mixture = client.get(f"/v1/launches/{launch}").json()["mixture_id"]
    keeping = {"evaluate_every": 10, "models": True, "average": 2, "checkpoints": 3}
    body = {
        "mixture_id": mixture,
        "size": "nano-0.1M",
        "keeping": keeping,
        "budgets": [65_536, 131_072, 262_144],
    }
    planned = client.post("/v1/launches?dry_run=true", json=body)
    assert (planned.status_code, [one["tokens"] for one in planned.json()["items"]]) == (200, body["budgets"])
    before = len(client.get("/v1/launches").json()["items"])
    for _ in range(2):
        made = client.post("/v1/launches", json=body, headers={"Idempotency-Key": "budgets"})
        assert made.status_code == 202, made.text
        items = made.json()["items"]
        assert [one["settings"]["tokens"] for one in items] == body["budgets"]
        assert made.headers["location"] == f"/v1/launches/{items[0]['id']}"
        assert {one["settings"]["series"] for one in items} == {items[0]["id"]}
        assert items[0]["settings"]["keeping"] == keeping
    assert len(client.get("/v1/launches").json()["items"]) == before + 3
    for change, field in (
        ({"budgets": [65_536, 100]}, "budgets[1]"),
        ({"seeds": [1, 1]}, None),
        ({"seeds": [1, 2], "seed": 3}, None),
        ({"seeds": [-1]}, "seeds[0]"),
        ({"seeds": list(range(16)), "budgets": [65_536 + step for step in range(5)]}, None),
        ({"budgets": [65_536, 65_536]}, None),
        ({"tokens": 65_536}, None),
        ({"budgets": None}, None),
        ({"launcher": "theirs", "size": None}, "size"),
        ({"keeping": {"average": -1}}, "keeping.average"),
    ):
        refused = client.post("/v1/launches", json={**body, **change})
        assert refused.status_code == 422, refused.text
        if field is not None:
            assert refused.json()["field"] == field
    assert len(client.get("/v1/launches").json()["items"]) == before + 3
