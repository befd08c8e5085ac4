"""The documents of methods that train nothing."""

import json

import pytest

from mixing.answer.untrained import baseline
from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting, UnknownMethod
from mixing.methods import METHODS
from mixing.question import Question

POOL = {"books": 1e6, "code": 3e6, "web": 16e6}
UNTRAINED = sorted(name for name, method in METHODS.items() if not method.trains_runs)


def document_of(method: str, target: float = 1e6, cap: float | None = 4.0, tau: float | None = None) -> dict:
    domains = Domains.of(POOL)
    return baseline(
        Question(method=method, domains=domains, target_tokens=target, repetition_cap=cap, temperature=tau)
    )


@pytest.mark.parametrize("method", UNTRAINED)
@pytest.mark.parametrize("target", [1e6, 4e7, 8e7])
def test_the_document_is_json_and_its_mixture_is_under_the_caps(method: str, target: float) -> None:
    document = document_of(method, target)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert sum(document["weights"].values()) == pytest.approx(1, abs=1e-9)
    for row in document["domains"]:
        assert row["weight"] == document["weights"][row["name"]]
        assert row["epochs"] == pytest.approx(row["weight"] * target / POOL[row["name"]])
        assert row["epochs"] <= 4 * (1 + 1e-9)
        assert row["binding"] == (row["epochs"] > 4 * (1 - 1e-6) and row["cap"] is not None)
    named = {row["domain"] for row in document["constraints"]}
    assert named == {row["name"] for row in document["domains"] if row["binding"]}


def test_weights_are_those_the_names_promise() -> None:
    assert document_of("natural")["weights"] == pytest.approx({"books": 0.05, "code": 0.15, "web": 0.8})
    assert document_of("uniform")["weights"] == pytest.approx(dict.fromkeys(POOL, 1 / 3))
    # N^0.5 of 1, 3 and 16: 1, 1.732 and 4.
    assert document_of("temperature")["weights"]["web"] == pytest.approx(4 / (1 + 3**0.5 + 4))
    assert document_of("temperature", tau=1.0)["weights"] == pytest.approx(document_of("natural")["weights"])
    # UniMax at 20M tokens and 4 epochs: books take their 4M, the others share the other 16M up to code's 12M.
    assert document_of("unimax", 2e7)["weights"] == pytest.approx({"books": 0.2, "code": 0.4, "web": 0.4})


def test_what_is_not_predicted_is_none() -> None:
    document = document_of("natural")
    assert document["objective"] is None
    assert document["held_out_rank_correlation"] is None
    assert document["tasks"] == []
    assert document["runs_used"] == 0


def test_without_a_cap_nothing_binds() -> None:
    document = document_of("uniform", 1e9, None)
    assert [row["cap"] for row in document["domains"]] == [None, None, None]
    assert document["constraints"] == []


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="proxy runs"):
        document_of("olmix")
    with pytest.raises(UnknownMethod):
        document_of("alchemy")
    with pytest.raises(InvalidSetting, match="cap"):
        document_of("unimax", cap=None)
    with pytest.raises(InvalidSetting, match="tau"):
        document_of("temperature", tau=float("nan"))
    for method in UNTRAINED:
        with pytest.raises(Infeasible):
            document_of(method, 1e9)
