"""Rounds that end when more would not pay, and an answer that is asked for more, sampled and solved for real."""

import html
import json
import re
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from store import jobs
from store.settings import Settings
from tests.service.test_swarms_elsewhere import QUESTION, TOKENS, asked, pool_of
from tests.working import work

Document = dict[str, Any]
QUICK: Document = {
    **QUESTION,
    "regression": "log-linear",
    "tasks": [{"name": "code/bits_per_byte", "metric": "bpb"}],
}


@pytest.fixture
def pool(client: TestClient) -> TestClient:
    pool_of(client)
    return client


def answered(client: TestClient, settings: Settings, waiting: Document, noise: float = 0.01) -> Document:
    """The optimization once its rounds have come back, by the law that more code is better up to a half."""
    address = f"/v1/optimizations/{waiting['id']}"
    while (found := client.get(address).json())["state"] not in jobs.ENDED:
        runs = client.get("/v1/runs", params={"swarm": found["swarm_id"], "limit": 200}).json()["items"]
        results = []
        for run in runs:
            if run["state"] == jobs.WAITING:
                seed = int.from_bytes(run["id"].encode()[-6:], "big")
                code = client.get(f"/v1/runs/{run['id']}").json()["weights"]["code"]
                value = 1.0 + np.exp(-2 * code) + noise * float(np.random.default_rng(seed).standard_normal())
                results.append({"run": run["id"], "metrics": {"code/bits_per_byte": value}})
        sent = client.post(f"/v1/swarms/{found['swarm_id']}/results", json={"results": results})
        assert sent.status_code == 200, sent.text
        work(settings)
    assert found["state"] == "succeeded", found["failure"]
    return found


def test_training_ends_when_the_answer_gives_away_little_and_says_what_that_saved(
    pool: TestClient, settings: Settings
) -> None:
    rule = {"expected_regret": 0.05}
    waiting = asked(pool, settings, **{**QUICK, "runs": 40, "stop_when": rule})
    assert waiting["settings"]["rounds"] == [20, 5, 5, 5, 5]
    assert waiting["settings"]["recipe"]["sampler"] == "decisive"
    assert waiting["progress"]["looks"] == []
    found = answered(pool, settings, waiting)
    progress = found["progress"]
    trained = progress["runs"]["succeeded"]
    assert trained < 40
    assert progress["runs"]["total"] == trained == sum(found["settings"]["rounds"])
    assert progress["stopped"]["saved"] == 40 - trained
    assert progress["stopped"]["planned"] == 40
    last = progress["looks"][-1]
    assert (last["met"], last["runs"]) == ("expected_regret", trained)
    assert last["expected_regret"] < 0.05
    assert all(look["met"] is None for look in progress["looks"][:-1])
    assert [stage["state"] for stage in progress["stages"]] == ["succeeded"] * 4
    evidence = pool.get(f"/v1/mixtures/{found['mixture_id']}").json()["evidence"]
    assert evidence["regret"]["expected"] == pytest.approx(last["expected_regret"])
    assert evidence["stopped"]["saved"] == 40 - trained
    sentence = f"Stopped after {trained} of 40 runs: {40 - trained} runs not spent"
    assert any(note.startswith(sentence) for note in evidence["notes"])
    assert progress["stopped"]["sentence"].startswith(sentence)
    page = pool.get(f"/optimizations/{found['id']}")
    assert page.status_code == 200
    assert sentence in page.text
    looks = page.text.partition('id="looks"')[2].partition("</table>")[0]
    assert looks.count("not met") + looks.count("out of reach") == len(progress["looks"]) - 1
    assert looks.count("little is given away") == 1


def test_a_rule_out_of_reach_is_told_and_all_runs_are_trained(pool: TestClient, settings: Settings) -> None:
    waiting = asked(
        pool, settings, **{**QUICK, "runs": 12, "rounds": 3, "stop_when": {"expected_regret": 1e-9}}
    )
    found = answered(pool, settings, waiting)
    assert found["progress"]["runs"]["succeeded"] == 12
    assert found["progress"]["stopped"] is None
    assert [look["can_be_met"] for look in found["progress"]["looks"]] == [False, False]
    evidence = pool.get(f"/v1/mixtures/{found['mixture_id']}").json()["evidence"]
    assert evidence["stopped"] is None
    assert any("The rule to stop by was not met" in note for note in evidence["notes"])


def test_an_answer_is_extended_by_runs_where_they_change_it_most(
    pool: TestClient, settings: Settings
) -> None:
    first = answered(pool, settings, asked(pool, settings, **{**QUICK, "runs": 10}))
    address = f"/v1/optimizations/{first['id']}:extend"
    plan = pool.post(address, params={"dry_run": True}, json={"runs": 8, "rounds": 2})
    assert plan.status_code == 200, plan.text
    assert (plan.json()["rounds"], plan.json()["total_runs"]) == ([4, 4], 18)
    regret = pool.get(f"/v1/mixtures/{first['mixture_id']}").json()["evidence"]["regret"]["expected"]
    assert plan.json()["expected_regret"] == regret
    assert plan.json()["best_expected_regret"] == pytest.approx(regret * 10 / 18)
    assert pool.get(f"/v1/optimizations/{first['id']}").json()["state"] == "succeeded", "nothing is stored"
    offered = re.search(
        rf"POST {address}\n(.*?)</pre>", pool.get(f"/optimizations/{first['id']}").text, re.DOTALL
    )
    assert offered
    body = json.loads(html.unescape(offered[1]))
    assert pool.post(address, params={"dry_run": True}, json=body).json()["total_runs"] == 10 + body["runs"]
    headers = {"Idempotency-Key": "more"}
    made = pool.post(address, json={"runs": 8, "rounds": 2}, headers=headers)
    assert made.status_code == 202, made.text
    assert made.json()["state"] == "queued"
    assert 'id="step-more-runs"' not in pool.get(f"/optimizations/{first['id']}").text
    work(settings)
    again = pool.post(address, json={"runs": 8, "rounds": 2}, headers=headers)
    assert again.status_code == 202
    assert again.json()["settings"]["rounds"] == [10, 4, 4], "the same key again adds nothing"
    assert pool.post(address, json={"runs": 8}).json()["code"] == "not_finished"
    found = answered(pool, settings, first)
    assert found["progress"]["runs"]["succeeded"] == 18
    assert found["earlier_mixture_ids"] == [first["mixture_id"]]
    assert found["mixture_id"] != first["mixture_id"]
    assert found["natural_mixture_id"] == first["natural_mixture_id"]
    mixture = pool.get(f"/v1/mixtures/{found['mixture_id']}").json()
    assert mixture["kind"] == "proposed"
    assert mixture["evidence"]["runs_used"] == 18
    earlier = pool.get(f"/v1/mixtures/{first['mixture_id']}").json()
    assert (earlier["kind"], earlier["evidence"]["runs_used"]) == ("proposed-1", 10)
    for path in (f"/optimizations/{found['id']}", f"/mixtures/{earlier['id']}/lineage"):
        assert pool.get(path).status_code == 200
    third = pool.post(address, json={"runs": 3, "stop_when": "noise"})
    assert third.status_code in (202, 422), third.text


@pytest.mark.parametrize(
    ("changed", "code", "field"),
    [
        ({"stop_when": {"expected_regret": 0.0}}, "never_met", "stop_when.expected_regret"),
        ({"stop_when": {"expected_regret": -1.0}}, "never_met", "stop_when.expected_regret"),
        ({"stop_when": {}}, "invalid_setting", "stop_when"),
        ({"stop_when": "noise", "rounds": 1}, "never_met", "stop_when"),
        ({"stop_when": "noise", "runs": 5}, "never_met", "stop_when"),
        ({"rounds": 11, "runs": 14}, "too_few_runs", "runs"),
        ({"rounds": 3, "sampler": "d-optimal"}, "rounds_learn_nothing", "sampler"),
        ({"method": "natural", "rounds": 2}, "nothing_is_trained", "rounds"),
        (
            {
                "trained": "here",
                "proxy_name": None,
                "tasks": [],
                "proxy": {"tokens": 65_536, "evaluations": 1},
                "stop_when": "noise",
            },
            "never_met",
            "stop_when.noise",
        ),
    ],
)
def test_a_rule_that_nothing_meets_and_rounds_that_learn_nothing_are_refused(
    pool: TestClient, changed: Document, code: str, field: str
) -> None:
    body = {name: value for name, value in {**QUICK, **changed}.items() if value is not None}
    if changed.get("method") == "natural":
        body = {"domain_set": "pool", "target_tokens": 10**9, **changed}
    refused = pool.post("/v1/optimizations", json=body)
    assert refused.status_code == 422, refused.text
    assert (refused.json()["code"], refused.json()["field"]) == (code, field), refused.text


def test_what_cannot_be_extended_says_why(pool: TestClient, settings: Settings) -> None:
    found = answered(pool, settings, asked(pool, settings, **{**QUICK, "runs": 10}))

    def refused(body: Document, optimization: str = found["id"]) -> tuple[str, str | None]:
        answer = pool.post(f"/v1/optimizations/{optimization}:extend", json=body).json()
        return answer["code"], answer.get("field")

    assert refused({"runs": 8}, "opt_nobody")[0] == "optimization_not_found"
    assert refused({"runs": 8, "device_hours": 1.0})[0] == "invalid_request"
    assert refused({"device_hours": 1.0}) == ("cost_unknown", "device_hours")
    assert refused({"runs": 999_999}) == ("too_many_runs", "runs")
    assert refused({"runs": 2, "stop_when": {"expected_regret": 1e-9}}) == ("never_met", "stop_when")
    assert refused({"runs": 2, "stop_when": {"expected_regret": 9.0}}) == ("already_met", "stop_when")
    natural = pool.post(
        "/v1/optimizations", json={"domain_set": "pool", "method": "natural", "target_tokens": 10**9}
    ).json()
    assert refused({"runs": 8}, natural["id"])[0] == "not_finished"
    work(settings)
    assert refused({"runs": 8}, natural["id"]) == ("nothing_is_trained", "runs")
    assert sum(TOKENS.values()) == 1e10
