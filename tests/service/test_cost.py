"""The cost of a swarm over HTTP: counted, timed by the best evidence there is, refused where it cannot fit."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from proxy_models.config import TrainingConfig, size_named
from proxy_models.planning.calibration import Calibration, Device, Rate, file_of, save, shape_of
from proxy_models.planning.memory import bytes_per_model, largest_wave, processor_name, total_memory
from proxy_models.training.mixture_sampler import allocate_rows
from service.dashboard.formatting import flops
from service.training.device import worker_device
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job, Launch, Optimization, Run, Swarm
from tests.service.conftest import LLAMA

pytestmark = pytest.mark.usefixtures("counted_once")

Document = dict[str, Any]
MODEL = size_named("nano-0.1M")
HERE = Device(processor_name(), "cpu", "2.9.1", 1)
RATES = (
    Rate(shape_of(MODEL), 1024, "one-by-one", 1, 10_000.0, 0.0),
    Rate(shape_of(MODEL), 1024, "stacked", 4, 20_000.0, 1.0),
)
CALIBRATION = Calibration(HERE, 2**34, RATES)


def dry_run(client: TestClient, body: Document) -> Document:
    response = client.post("/v1/optimizations?dry_run=true", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def counted(client: TestClient, settings: Settings, optimization: Document) -> Document:
    """The request, its revision counted as a worker leaves it: 4 bytes a token, 10,000 of each domain held out."""
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        for job in session.query(Job):
            job.state = jobs.SUCCEEDED
        for index, row in enumerate(session.query(DomainRow)):
            row.counted_tokens, row.counted_bytes, row.held_out_bytes = 1_000, 4_000, 10_000
            row.content_hash = f"{index + 1:064x}"
    database.close()
    return {**optimization, "reuse": {"kind": "none", "runs": False}}


def test_a_plan_tells_arithmetic_and_memory_and_why_it_knows_no_time(
    client: TestClient, counted: Document
) -> None:
    found = dry_run(client, {**counted, "runs": 12})
    cost, per_token = found["cost"], MODEL.flops_per_token(128)
    assert (cost["flops_per_token"], cost["tokens"]) == (per_token, 12 * 65_536)
    assert cost["training_flops"] == 12 * 65_536 * per_token
    # 3 domains of 10,000 bytes, 4 a token, forward only
    assert cost["evaluation_flops"] == 12 * 7_500 * per_token // 3
    assert cost["bytes_per_model"] == bytes_per_model(MODEL, TrainingConfig(65_536))
    assert cost["memory_bytes"] == total_memory()
    assert cost["largest_wave"] > 0
    assert (cost["device_hours"], cost["source"], cost["backend"]) == (None, None, None)
    assert cost["unknown"] == "no cpu was calibrated yet"
    assert found["hours"] == {"new": None, "recompute": None}
    assert any("no cpu was calibrated yet" in sentence for sentence in found["sentences"])


def test_a_tasks_file_costs_what_it_held_when_it_was_posted(
    client: TestClient, counted: Document, settings: Settings
) -> None:
    file = settings.data_directory / "corpora" / "sums.jsonl"
    file.write_text(json.dumps({"context": "two and two are", "continuation": " four"}) + "\n")
    size = file.stat().st_size
    body = {**counted, "runs": 12, "tasks": [{"name": "sums", "path": str(file)}]}
    # 10,000 bytes held out of each of 3 domains read once, the task at each of 3 evaluations; 4 bytes a token
    expected = 12 * round((30_000 + 3 * size) / 4) * MODEL.flops_per_token(128) // 3
    assert dry_run(client, body)["cost"]["evaluation_flops"] == expected
    created = client.post("/v1/optimizations", json=body).json()
    file.unlink()  # as good as an object in a store, which no request asks for its size
    again = client.get(f"/v1/optimizations/{created['id']}").json()
    assert again["cost"]["evaluation_flops"] == expected


def test_a_calibrated_device_tells_the_time_the_backend_and_the_waves(
    client: TestClient, counted: Document, settings: Settings
) -> None:
    save(settings.calibrations, CALIBRATION)
    found = dry_run(client, {**counted, "runs": 13})
    cost = found["cost"]
    seconds = 1 + 13 * (65_536 + 2_500) / 20_000
    assert cost["device_hours"] == pytest.approx(seconds / 3600, rel=1e-6)
    assert (cost["source"], cost["unknown"]) == ("calibration", None)
    assert (cost["backend"], cost["members"], cost["waves"]) == ("stacked", 4, 4)
    assert cost["device"] == str(HERE)
    assert found["hours"]["new"] == cost["device_hours"]
    assert found["hours"]["recompute"] is not None
    assert any("stacked, up to 4 together, in 4 waves" in sentence for sentence in found["sentences"])
    made = client.post("/v1/optimizations", json={**counted, "runs": 13}).json()
    assert made["cost"] == cost
    assert client.get(f"/v1/optimizations/{made['id']}").json()["cost"] == cost
    page = client.get(f"/optimizations/{made['id']}")
    assert page.status_code == 200
    for said in ("stacked, 4 waves of up to 4", flops(cost["training_flops"]), "calibration"):
        assert said in page.text


def test_a_swarms_own_runs_are_believed_before_any_table(
    client: TestClient, counted: Document, settings: Settings
) -> None:
    save(settings.calibrations, CALIBRATION)
    made = client.post("/v1/optimizations", json={**counted, "runs": 12}).json()
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        row = session.get_one(Optimization, made["id"])
        swarm = Swarm(optimization_id=row.id, revision_id=row.revision_id)
        session.add(swarm)
        session.flush()
        run = Run(
            swarm_id=swarm.id, position=0, seed=0, weights={}, result={"tokens": 65_536, "seconds": 50.0}
        )
        session.add(run)
        session.flush()
        job = jobs.new_job(jobs.PROXY_RUN, run.id, row.id, 0)
        job.state = jobs.SUCCEEDED
        session.add(job)
    database.close()
    cost = client.get(f"/v1/optimizations/{made['id']}").json()["cost"]
    assert cost["source"] == "own_runs"
    assert cost["device_hours"] == pytest.approx(12 * 50 / 3600)


def test_a_table_nobody_can_read_is_named_and_stops_nothing(
    client: TestClient, counted: Document, settings: Settings
) -> None:
    save(settings.calibrations, CALIBRATION)
    file = file_of(settings.calibrations, HERE)
    file.write_text("{")
    cost = dry_run(client, counted)["cost"]
    assert cost["device_hours"] is None
    assert str(file) in cost["unknown"]


def test_a_model_that_fits_nowhere_is_refused_with_what_would_fit(
    client: TestClient, counted: Document
) -> None:
    big = {"size": "mini-60M", "tokens": 2**40, "sequence_length": 32_768, "batch_rows": 4096}
    for path in ("/v1/optimizations", "/v1/optimizations?dry_run=true"):
        response = client.post(path, json={**counted, "proxy": big})
        assert response.status_code == 422
        problem = response.json()
        assert problem["code"] == "not_enough_memory"
        training = TrainingConfig(2**40, 32_768, 4096)
        needed = bytes_per_model(size_named("mini-60M"), training)
        assert problem["missing_bytes"] == pytest.approx(needed - total_memory(), rel=1e-3)
        assert problem["field"] in ("proxy.batch_rows", "proxy.size")
    assert client.get("/v1/optimizations").json()["items"] == []
    rows = problem.get("largest_batch_rows")
    if rows is not None:
        assert f"batch_rows {rows}" in problem["detail"]
        fitting = replace(training, batch_rows=rows)
        assert largest_wave(size_named("mini-60M"), fitting, "cpu", total_memory()) == 1


def test_a_launch_that_fits_nowhere_is_refused_as_well(
    client: TestClient, counted: Document, settings: Settings
) -> None:
    made = client.post(
        "/v1/mixtures",
        json={
            "domain_set": "pool",
            "name": "mine",
            "weights": {"books": 0.2, "web:forums": 0.4, "web:news": 0.4},
        },
    )
    assert made.status_code == 201, made.text
    launch = {"mixture_id": made.json()["id"], "size": "mini-60M", "tokens": 2**40}
    response = client.post("/v1/launches", json={**launch, "sequence_length": 32_768, "batch_rows": 4096})
    assert (response.status_code, response.json()["code"]) == (422, "not_enough_memory")
    assert response.json()["field"] in ("batch_rows", "size")


def test_workers_elsewhere_have_the_memory_they_measured(settings: Settings, tmp_path: Path) -> None:
    elsewhere = settings.model_copy(update={"database_url": "postgresql://team", "slots": 8})
    assert worker_device(elsewhere).memory_bytes is None
    gpu = replace(CALIBRATION, device=replace(HERE, name="GPU", type="cuda"), memory_bytes=2**37)
    for table in (CALIBRATION, gpu):
        save(settings.calibrations, table)
    assert worker_device(elsewhere).memory_bytes == 2**34
    on_gpu = worker_device(elsewhere.model_copy(update={"device": "cuda:1"}))
    assert (on_gpu.memory_bytes, on_gpu.tables, on_gpu.room.processes) == (2**37, (gpu,), 1)
    here = worker_device(settings.model_copy(update={"slots": 3}))
    assert (here.memory_bytes, here.room.processes) == (total_memory(), 3)


def test_this_machines_own_table_is_asked_before_a_newer_one_of_another(settings: Settings) -> None:
    save(settings.calibrations, CALIBRATION)
    save(settings.calibrations, replace(CALIBRATION, device=replace(HERE, name="another")))
    assert [table.device.name for table in worker_device(settings).tables] == [processor_name(), "another"]


def test_what_trains_nothing_costs_nothing(client: TestClient, optimization: Document) -> None:
    baseline = {"domain_set": "pool", "method": "natural", "target_tokens": 100_000}
    assert dry_run(client, baseline)["cost"] is None
    assert client.post("/v1/optimizations", json=baseline).json()["cost"] is None


def test_an_architecture_is_counted_before_it_starts(client: TestClient, counted: Document) -> None:
    body = {**counted, "runs": 12, "proxy": {"architecture": LLAMA, "tokens": 65_536}}
    found = dry_run(client, body)
    cost = found["cost"]
    layer = 4 * 64 * 64 + 3 * 64 * 128 + 2 * 64  # attention, SwiGLU and two norms
    vocabulary = counted_vocabulary(client)
    per_token = 6 * (2 * layer + 64 + vocabulary * 64) + 6 * 2 * 128 * 64
    assert (cost["flops_per_token"], cost["tokens"]) == (per_token, 12 * 65_536)
    assert cost["training_flops"] == 12 * 65_536 * per_token
    assert (cost["bytes_per_model"], cost["device_hours"]) == (None, None)
    assert cost["unknown"] == "only the named sizes are calibrated"
    assert any(flops(cost["training_flops"]) in sentence for sentence in found["sentences"])
    made = client.post("/v1/optimizations", json=body).json()
    assert made["cost"] == cost
    assert client.get(f"/v1/optimizations/{made['id']}").json()["cost"] == cost
    assert flops(cost["training_flops"]) in client.get(f"/optimizations/{made['id']}").text


def counted_vocabulary(client: TestClient) -> int:
    (pool,) = client.get("/v1/domain-sets").json()["items"]
    return client.get(f"/v1/domain-sets/{pool['name']}").json()["tokenizer"]["vocabulary_size"]


def test_the_page_says_in_what_the_proxy_is_trained(client: TestClient, counted: Document) -> None:
    for precision, said in (("float32", "65.5K tokens<"), ("bfloat16", "65.5K tokens, bfloat16<")):
        body = {**counted, "seed": len(precision), "proxy": {**counted["proxy"], "precision": precision}}
        made = client.post("/v1/optimizations", json=body).json()
        assert said in client.get(f"/optimizations/{made['id']}").text


def test_an_architecture_that_cannot_be_or_fits_nowhere_is_refused_when_it_is_asked_for(
    client: TestClient, counted: Document
) -> None:
    wide = {"hidden_size": 16_384, "intermediate_size": 65_536, "num_hidden_layers": 80}
    cases = [
        ({"hidden_act": "nonsense"}, "invalid_spec", "proxy.architecture"),
        (wide, "not_enough_memory", "proxy.architecture"),
    ]
    for change, code, field in cases:
        asked = {**counted, "proxy": {"architecture": {**LLAMA, **change}, "tokens": 65_536}}
        answer = client.post("/v1/optimizations", json=asked)
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
    layer = 4 * 16_384**2 + 3 * 16_384 * 65_536 + 2 * 16_384
    weights = 80 * layer + 16_384 + 2 * counted_vocabulary(client) * 16_384
    assert answer.json()["missing_bytes"] == 16 * weights - total_memory()
    assert client.get("/v1/optimizations").json()["items"] == []


def test_a_plan_tells_of_copies_of_declared_counts_and_of_how_little_there_is_to_decide(
    client: TestClient, counted: Document, settings: Settings
) -> None:
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        books = session.query(DomainRow).filter_by(name="books").one()
        books.counted_tokens, books.documents = 333_505, 900
        most = [{"copies": 5, "text": "the same again"}]
        books.findings = {"unique_tokens": 300_000, "repeated_documents": 90, "repeated": most}
        shared = {"domains": ["books", "web:news"], "documents": 7, "examples": ["one of them"]}
        texts = [{**shared, "tokens": {"books": 200_000, "web:news": 900}}]
        books.revision.shared_text = {"texts": texts, "not_compared": []}
    database.close()
    said = dry_run(client, {**counted, "target_tokens": 4_000_000})["warnings"]
    assert said[0].startswith("There is little to decide: read evenly, all text is read 3.61 times")
    assert said[1] == (
        "Domain books: It is declared to have 10,000 tokens, and its files hold 333,505 to train on; the declared"
        " number counts. Leave it out to use what the files hold."
    )
    assert (
        "90 of its 900 documents are copies of others, the most frequent 5 times: 'the same again'" in said[2]
    )
    assert said[3].startswith("books and web:news share 7 documents of 200,000 tokens, such as 'one of them'")
    view = client.get("/v1/domain-sets/pool/revisions/1").json()
    (books_view,) = [domain for domain in view["domains"] if domain["name"] == "books"]
    assert (books_view["tokens"], books_view["counted_tokens"]) == (10_000, 333_505)
    assert books_view["unique_tokens"] == 300_000
    assert [f"Domain books: {warning}" for warning in books_view["warnings"]] == said[1:3]
    assert view["warnings"] == said[3:]


def launch_of(client: TestClient, weights: dict[str, float], **said: Any) -> Document:
    """A request for a launch on a mixture made by hand: 1,000 rows of 1,024 tokens."""
    mixture = {"domain_set": "pool", "name": "mine", "weights": weights}
    made = client.post("/v1/mixtures", json=mixture).json()["id"]
    training = {"size": "nano-0.1M", "tokens": 1_024_000, "sequence_length": 1024, "batch_rows": 1}
    return {"mixture_id": made, **training, **said}


def test_a_launch_tells_its_device_hours_and_they_are_kept(
    client: TestClient, counted: Document, settings: Settings
) -> None:
    save(settings.calibrations, CALIBRATION)
    weights = {"web:news": 0.5, "web:forums": 0.3, "books": 0.2}
    launch = launch_of(client, weights, sequence_length=128, batch_rows=8)
    plan = client.post("/v1/launches?dry_run=true", json=launch).json()
    # Of 1,024 tokens a step alone at 10,000 a second; 30,000 held-out bytes are evaluated with a third of the work.
    evaluated = (30_000 / 4) / 3
    assert plan["device_hours"] == pytest.approx((1_024_000 + evaluated) / 10_000 / 3600)
    assert plan["warnings"] == []
    made = client.post("/v1/launches", json=launch).json()
    with Database(settings.resolved_database_url).read() as session:
        assert session.get_one(Launch, made["id"]).device_hours == pytest.approx(plan["device_hours"])


def test_a_launch_names_the_domains_that_may_get_no_row_and_how_many_tokens_give_them_one(
    client: TestClient, counted: Document
) -> None:
    weights = {"web:news": 0.9, "web:forums": 0.0997, "books": 0.0003}
    launch = launch_of(client, weights)
    plan = client.post("/v1/launches?dry_run=true", json=launch).json()
    (said,) = plan["warnings"]
    assert "books (0.0003, 0.3 rows)" in said
    assert "1,000 rows of 1,024 tokens" in said
    (tokens,) = re.findall(r"With ([\d,]+) tokens", said)
    (shorter,) = re.findall(r"rows of ([\d,]+), each gets one", said)
    made = client.post("/v1/launches", json=launch)
    assert made.status_code == 202
    assert made.json()["warnings"] == [said]
    assert said in html.unescape(client.get(f"/launches/{made.json()['id']}").text)
    for more in ({"tokens": int(tokens.replace(",", ""))}, {"sequence_length": int(shorter)}):
        enough = {**launch, **more}
        assert client.post("/v1/launches?dry_run=true", json=enough).json()["warnings"] == []
        rows = enough["tokens"] // enough["sequence_length"]
        shares = allocate_rows(np.array([*weights.values()]), rows, np.full(3, rows))
        assert all(shares > 0)


def test_a_launch_is_refused_where_rounding_would_make_it_another_mixture(
    client: TestClient, counted: Document
) -> None:
    launch = launch_of(client, {"web:news": 0.9, "web:forums": 0.06, "books": 0.04}, tokens=8 * 1024)
    refused = client.post("/v1/launches?dry_run=true", json=launch)
    assert (refused.status_code, refused.json()["code"]) == (422, "rows_too_coarse")
    assert refused.json()["names"] == ["books", "web:forums"]
    assert refused.json()["field"] == "tokens"
