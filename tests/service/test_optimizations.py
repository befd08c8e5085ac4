import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from proxy_models.config import SIZES
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Job, database_now

Document = dict[str, Any]


def refused(client: TestClient, request: Document) -> Document:
    response = client.post("/v1/optimizations", json=request)
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert client.get("/v1/optimizations").json()["items"] == []
    return {"status": response.status_code, **response.json()}


def test_an_optimization_is_accepted_and_queued(client: TestClient, optimization: Document) -> None:
    response = client.post("/v1/optimizations", json=optimization)
    assert response.status_code == 202, response.text
    body = response.json()
    assert response.headers["location"] == f"/v1/optimizations/{body['id']}"
    assert int(response.headers["retry-after"]) > 0
    assert body["state"] == "queued"
    assert body["stage"] == "prepare"
    assert body["settings"]["runs"] == 3 * (3 + 1)  # Olmix: 3 (m + 1)
    assert body["settings"]["kl_weight"] == 0.05  # Olmix: lambda
    assert body["progress"]["runs"]["total"] == 12


def test_an_unchanged_optimization_is_not_sent_again(client: TestClient, optimization: Document) -> None:
    location = client.post("/v1/optimizations", json=optimization).headers["location"]
    tag = client.get(location).headers["etag"]
    assert client.get(location, headers={"If-None-Match": tag}).status_code == 304
    assert client.get(location, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_planned_run_is_counted_and_what_knowing_it_costs_is_told(
    client: TestClient, optimization: Document
) -> None:
    proxy = {**optimization["proxy"], "size": "nano-0.1M"}
    asked = {**optimization, "proxy": proxy, "target": {"size": "nano-1M"}}
    body = client.post("/v1/optimizations", json=asked).json()
    small, large = (SIZES[name].non_embedding_parameters for name in ("nano-0.1M", "nano-1M"))
    assert body["settings"]["target"] == {"parameters": large, "tokens": optimization["target_tokens"]}
    assert body["settings"]["run_parameters"] == small
    known = body["to_know"]
    assert known["parameters"] == round((small * large) ** 0.5)
    assert known["size"] == "nano-0.2M"
    assert known["unknown"][0] < known["known"][0] < 1 < known["known"][1] < known["unknown"][1]
    assert client.post("/v1/optimizations", json=optimization).json()["to_know"] is None


def test_anchors_are_planned_and_what_they_cost_is_told(client: TestClient, optimization: Document) -> None:
    anchors = [{"runs": 4, "size": "nano-0.5M"}, {"runs": 3, "tokens": 2 * optimization["proxy"]["tokens"]}]
    asked = {**optimization, "target": {"size": "nano-4M"}, "anchors": anchors}
    response = client.post("/v1/optimizations", json=asked)
    assert response.status_code == 202, response.text
    body = response.json()
    first, second = body["settings"]["anchors"]
    assert (first["runs"], first["proxy"]["size"]) == (4, "nano-0.5M")
    assert first["proxy"]["tokens"] == optimization["proxy"]["tokens"]
    assert second["proxy"]["size"] == body["settings"]["proxy"]["size"]
    assert first["parameters"] == SIZES["nano-0.5M"].non_embedding_parameters
    assert body["progress"]["runs"]["total"] == 12 + 7
    larger, longer = body["anchor_costs"]
    assert larger["flops_per_token"] > body["cost"]["flops_per_token"] == longer["flops_per_token"]
    assert longer["tokens"] == pytest.approx(6 * body["cost"]["tokens"] / 12, rel=0.05)
    assert body["to_know"] is None


def test_anchors_that_tell_nothing_are_named(client: TestClient, optimization: Document) -> None:
    asked = {**optimization, "target": {"size": "nano-4M"}}
    same = [{"runs": 4, "size": optimization["proxy"]["size"]}]
    assert refused(client, {**asked, "anchors": same})["code"] == "sizes_not_apart"
    twice = [{"runs": 4, "size": "nano-0.5M"}] * 2
    problem = refused(client, {**asked, "anchors": twice})
    assert (problem["code"], problem["field"]) == ("sizes_not_apart", "anchors[1]")
    assert refused(client, {**optimization, "anchors": twice[:1]})["code"] == "no_target"


@pytest.mark.parametrize(
    ("target", "code", "field"),
    [
        ({"parameters": 10}, "target_below_proxies", "target"),
        ({"size": "nano-9M"}, "unknown_size", "target.size"),
        ({"size": "nano-4M", "tokens": 5}, "other_tokens", "target.tokens"),
        ({"size": "nano-4M", "parameters": 10}, "invalid_request", "target"),
        ({"architecture": {"model_type": "no such"}}, "invalid_spec", "target.architecture"),
    ],
)
def test_a_target_that_cannot_be_is_named(
    client: TestClient, optimization: Document, target: Document, code: str, field: str
) -> None:
    problem = refused(client, {**optimization, "target": target})
    assert (problem["status"], problem["code"]) == (422, code)
    assert problem["field"] == field


def test_a_target_of_runs_elsewhere_needs_their_size(client: TestClient, optimization: Document) -> None:
    elsewhere = {name: value for name, value in optimization.items() if name not in ("proxy", "tasks")}
    elsewhere |= {"trained": "elsewhere", "tasks": [{"name": "reading"}], "target": {"size": "nano-4M"}}
    assert refused(client, elsewhere)["code"] == "missing_run_parameters"
    assert refused(client, {**elsewhere, "run_parameters": 100})["code"] == "missing_run_tokens"
    told = {**elsewhere, "run_parameters": 100, "run_tokens": 10}
    assert client.post("/v1/optimizations", json=told).status_code == 202


@pytest.mark.parametrize("state", [jobs.QUEUED, jobs.SUCCEEDED, jobs.FAILED])
def test_text_that_is_compared_is_prepared_only_then(
    client: TestClient, settings: Settings, optimization: Document, state: str
) -> None:
    location = client.post("/v1/optimizations", json=optimization).headers["location"]
    with Database(settings.resolved_database_url).write() as session:
        tokenizer = session.query(Job).filter(Job.kind == jobs.PREPARE_TOKENIZER).one()
        tokenizer.state, owner = jobs.SUCCEEDED, tokenizer.owner
        counted = [jobs.new_job(jobs.PREPARE_DOMAIN, name, owner) for name in ("a", "b", "c")]
        compared = jobs.new_job(jobs.COMPARE_DOMAINS, owner, owner)
        for job in (*counted, compared):
            job.state = state if job is compared else jobs.SUCCEEDED
        session.add_all([*counted, compared])
    stage = client.get(location).json()["progress"]["stages"][0]
    assert (stage["state"], stage["done"], stage["total"]) == (state, 4 + (state != jobs.QUEUED), 5)


def test_a_running_optimization_without_progress_is_not_sent_again(
    client: TestClient, settings: Settings, optimization: Document
) -> None:
    location = client.post("/v1/optimizations", json=optimization).headers["location"]
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        for job in session.query(Job).filter(Job.kind == jobs.PREPARE_TOKENIZER):
            job.state, job.started_at = jobs.RUNNING, database_now() - 100
    first = client.get(location)
    stage = first.json()["progress"]["stages"][0]
    assert (stage["name"], stage["state"]) == ("prepare", "running")
    assert 100 <= stage["seconds"] < 200
    tag = first.headers["etag"]
    second = client.get(location)
    assert second.json()["progress"]["stages"][0]["seconds"] > stage["seconds"], "the moment is another one"
    assert second.headers["etag"] == tag
    assert client.get(location, headers={"If-None-Match": tag}).status_code == 304
    with database.write() as session:
        for job in session.query(Job).filter(Job.kind == jobs.PREPARE_TOKENIZER):
            job.state, job.finished_at = jobs.SUCCEEDED, database_now()
    database.close()
    assert client.get(location, headers={"If-None-Match": tag}).status_code == 200


def test_an_unknown_method_lists_the_known_ones(client: TestClient, optimization: Document) -> None:
    problem = refused(client, {**optimization, "method": "alchemy"})
    assert (problem["status"], problem["field"]) == (422, "method")
    assert "alchemy" in problem["detail"]
    assert "olmix" in problem["detail"]


def test_too_few_runs_says_how_many_are_needed(client: TestClient, optimization: Document) -> None:
    problem = refused(client, {**optimization, "runs": 2})
    assert (problem["status"], problem["code"], problem["field"]) == (422, "too_few_runs", "runs")
    accepted = client.post("/v1/optimizations", json={**optimization, "runs": problem["needed"]})
    assert accepted.status_code == 202


def test_a_target_beyond_the_caps_says_how_much_is_missing(
    client: TestClient, optimization: Document
) -> None:
    # 1,110,000 tokens at most 4 times are 4,440,000; 5,000,000 want 140,000 more unique tokens.
    problem = refused(client, {**optimization, "target_tokens": 5_000_000})
    assert (problem["status"], problem["field"]) == (422, "target_tokens")
    assert "140,000" in problem["detail"]
    assert "4,440,000" in problem["detail"]
    assert client.post("/v1/optimizations", json={**optimization, "target_tokens": 4_440_000}).is_success


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"proxy": {"size": "giga", "tokens": 65_536}}, "proxy.size"),
        ({"proxy": {"size": "nano-0.1M", "tokens": 10}}, "proxy.tokens"),
        ({"proxy": {"size": "nano-0.1M", "tokens": 65_536, "learning_rate": -1}}, "proxy.learning_rate"),
        ({"target_tokens": 0}, "target_tokens"),
        ({"repetition_cap": 0}, "repetition_cap"),
        ({"seed": -1}, "seed"),
        ({"proxy": None}, "proxy"),
        ({"solver": "guessing"}, "solver"),
        ({"regression": "lightgbm", "solver": "exact"}, "solver"),
        ({"sampler": "perturbation"}, "regression"),
        ({"shares": [{"domains": ["books"]}]}, "shares[0]"),
        ({"shares": [{"domains": ["nothing"], "maximum": 0.5}]}, "shares[0].domains"),
        ({"shares": [{"domains": ["books"], "minimum": 0.5, "maximum": 0.4}]}, "shares[0]"),
        ({"guard_rails": [{"task": "sums"}]}, "guard_rails[0]"),
        ({"shares": [{"domains": ["books"], "minimum": "half"}]}, "shares[0].minimum"),
        ({"shares": [{"domains": ["books"], "maximum": 0.5, "name": "web:news"}]}, "shares[0].name"),
        ({"shares": [{"domains": ["web"], "maximum": 0.5}] * 2}, "shares[1].name"),
        ({"guard_rails": [{"task": "sums", "at_most": 2.0}]}, "guard_rails[0].task"),
        ({"guard_rails": [{"task": "held-out/films", "at_most": 2.0}]}, "guard_rails[0].task"),
        ({"guard_rails": [{"task": "held-out/books", "at_most": 2.0}] * 2}, "guard_rails[1].task"),
        ({"method": "autoscale", "guard_rails": [{"task": "held-out/books", "at_most": 2.0}]}, "guard_rails"),
        ({"method": "autoscale", "shares": [{"domains": ["books"], "maximum": 0.5}]}, "shares"),
        ({"method": "autoscale", "runs": 13}, "runs"),
        ({"aggregate": "worst_family", "granularity": "aggregated"}, "granularity"),
        ({"temperature": 0.5}, "temperature"),
        ({"method": "autoscale", "kl_weight": 0.1}, "kl_weight"),
        ({"method": "autoscale", "repetition_price": 0.1}, "repetition_price"),
        ({"revision": 10**30}, "revision"),
        ({"repetition_cap": 5e-324}, "repetition_cap"),
        ({"shares": [{"domains": ["books"], "maximum": 0.5, "name": "a\0b"}]}, "shares[0].name"),
    ],
)
def test_a_bad_setting_is_named(
    client: TestClient, optimization: Document, change: Document, field: str
) -> None:
    problem = refused(client, {**optimization, **change})
    assert (problem["status"], problem["field"]) == (422, field)


def test_a_bad_task_file_names_the_task_and_the_line(
    client: TestClient, settings: Settings, optimization: Document
) -> None:
    path = settings.data_directory / "corpora" / "task.jsonl"
    good = json.dumps({"context": "2 + 2 =", "continuation": " 4"})
    path.write_text(good + "\n" + json.dumps({"context": "3 + 3 ="}) + "\n")
    problem = refused(client, {**optimization, "tasks": [{"name": "sums", "path": str(path)}]})
    assert (problem["status"], problem["field"]) == (422, "tasks[0].path")
    assert "sums" in problem["detail"]
    assert "line 2" in problem["detail"]


def test_a_task_of_another_layout_is_read_as_its_fields_say(
    client: TestClient, settings: Settings, optimization: Document
) -> None:
    path = settings.data_directory / "corpora" / "quiz.json"
    path.write_text(json.dumps([{"stem": "2 + 2 =", "options": ["3", "4"], "key": "B"}] * 3))
    fields = {"context": "stem", "choices": "options", "gold": "key"}
    task = {"name": "quiz", "path": str(path), "fields": fields}
    stored = client.post("/v1/optimizations", json={**optimization, "tasks": [task]}).json()
    (kept,) = stored["settings"]["tasks"]
    assert (kept["fields"], kept["examples"], kept["normalization"]) == (fields, 3, "character")
    again = {**task, "fields": {**fields, "context": "Sum: {stem}"}}
    other = client.post("/v1/optimizations", json={**optimization, "tasks": [again]}).json()
    assert other["settings"]["tasks"][0]["digest"] != kept["digest"], (
        "runs measured on the one are not the other's"
    )
    for wrong in (
        {"context": "stem"},
        {**fields, "continuation": "key"},
        {"context": "stem", "choices": "options"},
    ):
        answer = client.post("/v1/optimizations", json={**optimization, "tasks": [{**task, "fields": wrong}]})
        assert (answer.status_code, answer.json()["field"]) == (422, "tasks[0].fields")


def test_an_unknown_domain_set_or_revision_is_not_found(client: TestClient, optimization: Document) -> None:
    assert refused(client, {**optimization, "domain_set": "nobody"})["status"] == 404
    assert refused(client, {**optimization, "revision": 7})["status"] == 404


def test_cancel_and_retry_follow_the_states(client: TestClient, optimization: Document) -> None:
    location = client.post("/v1/optimizations", json=optimization).headers["location"]
    assert client.post(f"{location}:retry").json()["code"] == "not_ended"
    cancelled = client.post(f"{location}:cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert client.post(f"{location}:cancel").json()["code"] == "already_ended"
    assert client.post(f"{location}:retry").json()["state"] == "queued"


def test_a_repeated_request_makes_one_optimization(client: TestClient, optimization: Document) -> None:
    headers = {"Idempotency-Key": "once"}
    ids = {
        client.post("/v1/optimizations", json=optimization, headers=headers).json()["id"] for _ in range(3)
    }
    assert len(ids) == 1
    assert len(client.get("/v1/optimizations").json()["items"]) == 1


BASELINES = ("natural", "uniform", "temperature", "unimax")
TRAINED = ("mixwright", "olmix", "regmix", "dml", "autoscale", "bimix", "admire", "climb")


@pytest.mark.parametrize("method", TRAINED)
def test_every_method_that_trains_runs_is_accepted(
    client: TestClient, optimization: Document, method: str
) -> None:
    response = client.post("/v1/optimizations", json={**optimization, "method": method})
    assert response.status_code == 202, response.text
    settings = response.json()["settings"]
    assert sum(settings["rounds"]) == settings["runs"] >= settings["minimum_runs"] > 0


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_trains_nothing_and_takes_nothing_it_would_ignore(
    client: TestClient, optimization: Document, method: str
) -> None:
    asked = {name: optimization[name] for name in ("domain_set", "target_tokens")}
    problem = refused(client, {**asked, "method": method, "runs": 5})
    assert (problem["code"], problem["field"]) == ("nothing_is_trained", "runs")
    response = client.post("/v1/optimizations", json={**asked, "method": method})
    assert response.status_code == 202, response.text
    progress = response.json()["progress"]
    assert (progress["runs"]["total"], progress["tokens_total"]) == (0, 0)


def test_parts_of_a_method_can_be_replaced(client: TestClient, optimization: Document) -> None:
    asked = {**optimization, "method": "olmix", "regression": "lightgbm", "granularity": "aggregated"}
    recipe = client.post("/v1/optimizations", json=asked).json()["settings"]["recipe"]
    assert recipe == {
        "sampler": "two-level-dirichlet",
        "regression": "lightgbm",
        "granularity": "aggregated",
        "solver": "mean-of-best",  # trees are not convex, and a search exploits them
    }


@pytest.fixture
def task(settings: Settings) -> Callable[..., Document]:
    """A task of two good lines."""
    path = settings.data_directory / "corpora" / "task.jsonl"
    path.write_text(json.dumps({"context": "2 + 2 =", "continuation": " 4"}) + "\n")

    def of(name: str, **more: object) -> Document:
        return {"name": name, "path": str(path), **more}

    return of


def test_what_is_wrong_with_families_is_named(
    client: TestClient, optimization: Document, task: Callable[..., Document]
) -> None:
    worst = {**optimization, "aggregate": "worst_family"}
    single = [task("sums", family="maths"), task("proofs", family="maths")]
    assert refused(client, {**worst, "tasks": single})["code"] == "one_family"
    clash = [task("sums", family="proofs"), task("proofs")]
    problem = refused(client, {**worst, "tasks": clash})
    assert (problem["status"], problem["field"], problem["names"]) == (422, "tasks", ["proofs"])
    assert client.post("/v1/optimizations", json={**optimization, "tasks": clash}).is_success, (
        "a mean has none"
    )


def test_without_tasks_every_held_out_slice_is_a_family(client: TestClient, optimization: Document) -> None:
    response = client.post("/v1/optimizations", json={**optimization, "aggregate": "worst_family"})
    assert response.status_code == 202, response.text


def test_a_guard_rail_may_be_of_a_task_or_of_a_held_out_slice(
    client: TestClient, optimization: Document, task: Callable[..., Document]
) -> None:
    rails = [{"task": "books", "at_most": 2.0}, {"task": "held-out/web:news", "worse_than_natural": 0.0}]
    asked = {**optimization, "tasks": [task("books")], "guard_rails": rails}
    response = client.post("/v1/optimizations", json=asked)
    assert [one["task"] for one in response.json()["settings"]["guard_rails"]] == [
        "books",
        "held-out/web:news",
    ]


def test_weights_that_are_all_zero_are_no_objective(
    client: TestClient, optimization: Document, task: Callable[..., Document]
) -> None:
    problem = refused(client, {**optimization, "tasks": [task("sums", weight=0), task("proofs", weight=0)]})
    assert (problem["code"], problem["field"]) == ("no_objective", "tasks")


def test_bimix_has_no_use_for_tasks(
    client: TestClient, optimization: Document, task: Callable[..., Document]
) -> None:
    problem = refused(client, {**optimization, "method": "bimix", "tasks": [task("sums")]})
    assert (problem["code"], problem["field"]) == ("own_domain_only", "tasks")


def test_shares_in_conflict_are_named_at_once(client: TestClient, optimization: Document) -> None:
    # Two million tokens: four epochs of the books' 10,000 are 2% of them.
    conflicts = {
        ("share of books", "web at most"): [
            {"domains": ["books"], "minimum": 0.01, "maximum": 0.01},
            {"name": "web at most", "domains": ["web"], "maximum": 0.98},
        ],
        ("share of books", "books"): [{"domains": ["books"], "minimum": 0.1}],
    }
    for names, shares in conflicts.items():
        problem = refused(client, {**optimization, "shares": shares})
        assert (problem["status"], problem["code"], problem["field"]) == (422, "infeasible", "shares")
        assert set(problem["names"]) == set(names)
        for name in names:
            assert name in problem["detail"]


def test_shares_wait_for_counts_that_are_not_known_yet(
    client: TestClient, domain_set: Document, optimization: Document
) -> None:
    domains = [{**domain, "tokens": None} for domain in domain_set["domains"]]
    assert client.post("/v1/domain-sets", json={**domain_set, "name": "raw", "domains": domains}).is_success
    shares = [{"domains": ["books"], "minimum": 0.1}]
    response = client.post("/v1/optimizations", json={**optimization, "domain_set": "raw", "shares": shares})
    assert response.status_code == 202, response.text


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"many"', "[]", "{}", "1e400", "-1"])
@pytest.mark.parametrize(
    "member", ["target_tokens", "kl_weight", "runs", "seed", "repetition_cap", "repetition_price"]
)
def test_what_is_no_number_is_refused_where_it_stands(
    client: TestClient, optimization: Document, member: str, value: str
) -> None:
    body = json.dumps({**optimization, member: "here"}).replace('"here"', value)
    response = client.post("/v1/optimizations", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.json()["field"] == member


def test_half_a_character_is_refused(client: TestClient, optimization: Document) -> None:
    shares = [{"domains": ["\ud800"], "maximum": 0.5}]
    body = json.dumps({**optimization, "shares": shares})  # as the escape \\ud800
    response = client.post("/v1/optimizations", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["field"]) == (422, "shares[0].domains[0]")


def test_a_revision_that_cannot_be_is_no_fault_of_the_service(
    client: TestClient, optimization: Document
) -> None:
    response = client.get(f"/v1/domain-sets/{optimization['domain_set']}/revisions/{10**30}")
    assert response.status_code == 422


def test_a_group_share_is_stored_with_the_domains_it_stands_for(
    client: TestClient, optimization: Document
) -> None:
    asked = {**optimization, "shares": [{"domains": ["web", "books"], "minimum": 0.2}]}
    (share,) = client.post("/v1/optimizations", json=asked).json()["settings"]["shares"]
    assert share["name"] == "web + books"
    assert all(name == "books" or name.startswith("web:") for name in share["domains"])
