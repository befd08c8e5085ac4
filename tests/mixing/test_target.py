"""What is predicted of the planned training run, and the mixture that is best there."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixing.answer.proposal import anchor_mixtures, propose
from mixing.domains import Domains
from mixing.errors import InvalidMetrics, InvalidSetting, UnknownDomain
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.terms import Target
from tests.mixing.test_warnings import check as check_warnings

DOMAINS = Domains.of({"web": 6e9, "code": 3e9, "books": 1e9})
QUESTION = Question(
    domains=DOMAINS,
    objective={"reading": 1.0, "coding": 1.0},
    target_tokens=4e9,
    target=Target(9e8, 4e9),
    proxy_parameters=1e8,
    proxy_tokens=1e9,
    seed=3,
)


def losses(mixture: np.ndarray) -> np.ndarray:
    """(2,) of reading and coding at the proxies; each wants another domain."""
    _, code, web = mixture
    return np.array([1.2 - 0.4 * (web + 0.02) ** 0.4, 1.0 - 0.4 * (code + 0.02) ** 0.4])


def run(
    name: str, mixture: np.ndarray, slopes: tuple[float, float] = (1.0, 1.0), **scale: float
) -> RunEvidence:
    reading, coding = (np.array(slopes) * losses(mixture)).tolist()
    values = {"reading": reading, "coding": coding}
    named = dict(zip(DOMAINS.names, mixture.tolist(), strict=True))
    return replace(RunEvidence(name, named, values), **scale)


MIXTURES = np.random.default_rng(1).dirichlet([1.5, 3, 5], 30)
PROXIES = tuple(run(f"proxy{k}", mixture) for k, mixture in enumerate(MIXTURES))


def anchors(slopes: tuple[float, float], size: float = 9.0, tokens: float = 4.0) -> tuple[RunEvidence, ...]:
    return tuple(
        run(f"anchor{k}", mixture, slopes, size=size, tokens=tokens) for k, mixture in enumerate(MIXTURES[:6])
    )


def document(runs: tuple[RunEvidence, ...], question: Question = QUESTION) -> dict[str, Any]:
    return propose(question, runs).to_dict()


def test_with_one_size_and_one_length_the_transfer_is_unknown_and_what_knowing_it_costs_is_told() -> None:
    found = document(PROXIES)
    at_target = found["at_target"]
    assert at_target["transfer"] == "unknown"
    objective = at_target["objective"]
    low, high = objective["interval"]
    assert low < objective["gain"] < high
    proxies = found["objective"]["gain_interval"]
    assert high - low > proxies[1] - proxies[0]
    parts = objective["parts"]
    widths = {name: bounds[1] - bounds[0] for name, bounds in parts.items() if bounds}
    assert widths["transfer"] > widths["regression"]
    assert max(widths.values()) < 1.05 * (high - low)
    assert parts["noise"] is None  # no run stated any
    known = at_target["to_know"]
    assert known["parameters"] == pytest.approx(3e8)
    assert known["tokens"] == pytest.approx(2e9)
    # The mixture is the proxies': nothing tells the tasks' weights there.
    assert found["weights"] == pytest.approx(document(PROXIES, replace(QUESTION, target=None))["weights"])


def test_without_a_target_nothing_is_said_of_one() -> None:
    assert document(PROXIES, replace(QUESTION, target=None))["at_target"] is None


def test_anchors_at_the_target_tell_what_it_gains() -> None:
    slopes = (0.5, 2.0)
    found = document((*PROXIES, *anchors(slopes)))
    at_target, weights = found["at_target"], np.array(list(found["weights"].values()))
    assert at_target["transfer"] == "measured"
    assert at_target["to_know"] is None
    truth = np.array(slopes) * (losses(DOMAINS.natural_weights) - losses(weights))
    low, high = at_target["objective"]["interval"]
    assert low < truth.mean() < high
    for row, gain in zip(
        sorted(at_target["tasks"], key=lambda row: row["name"], reverse=True), truth, strict=True
    ):
        assert row["interval"][0] < gain < row["interval"][1]
        assert row["agreement"] == pytest.approx(1, abs=0.06)


def test_the_mixture_is_the_best_at_the_target_by_brute_force() -> None:
    slopes = (0.3, 2.5)
    found = document((*PROXIES, *anchors(slopes)), replace(QUESTION, kl_weight=0.0))
    steps = np.linspace(0, 1, 201)
    grid = np.array([(1 - code - web, code, web) for code in steps for web in steps if code + web <= 1])
    grid = grid[(grid <= QUESTION.limits.caps).all(axis=1)]
    best = grid[np.argmin([np.array(slopes) @ losses(mixture) for mixture in grid])]
    at_proxies = grid[np.argmin([losses(mixture).sum() for mixture in grid])]
    weights = np.array(list(found["weights"].values()))
    reached, there, before = (np.array(slopes) @ losses(mixture) for mixture in (weights, best, at_proxies))
    assert reached - there < 0.1 * (before - there)


def swapped(anchor: RunEvidence) -> RunEvidence:
    """One whose tasks want each other's domains."""
    reading, coding = anchor.metrics["reading"], anchor.metrics["coding"]
    return replace(anchor, metrics={"reading": coding, "coding": reading})


def test_a_warning_fires_where_sizes_disagree_and_is_silent_where_they_agree() -> None:
    agreeing = anchors((0.5, 0.5))
    for runs, fires in ((agreeing, False), (tuple(map(swapped, agreeing)), True)):
        found = document((*PROXIES, *runs))
        assert ("weak_transfer" in {warning["code"] for warning in found["warnings"]}) is fires
        check_warnings(found, [*found["weights"], *(run.id for run in (*PROXIES, *runs))])


@pytest.mark.parametrize("target", [Target(9e7, 4e9), Target(9e8, 9e8)])
def test_a_target_smaller_than_its_proxies_is_refused(target: Target) -> None:
    with pytest.raises(InvalidSetting, match="and its proxies") as refused:
        replace(QUESTION, target=target)
    assert refused.value.field == "target"


@pytest.mark.parametrize("field", ["proxy_parameters", "proxy_tokens"])
def test_a_target_needs_to_know_its_proxies(field: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        replace(QUESTION, **{field: None})
    assert refused.value.field == field


def test_an_anchor_of_other_tasks_or_domains_is_refused_by_name() -> None:
    first, *others = anchors((1.0, 1.0))
    with pytest.raises(InvalidMetrics, match=r"anchor0.*coding"):
        document((*PROXIES, replace(first, metrics={"reading": 1.0}), *others))
    with pytest.raises(UnknownDomain, match="anchor0"):
        document((*PROXIES, replace(first, mixture={"web": 0.5, "prose": 0.5}), *others))


def test_anchors_are_the_natural_mixture_the_best_and_runs_from_bad_to_good_all_different() -> None:
    chosen = anchor_mixtures(QUESTION, PROXIES, 6)
    rows = np.array([[mixture[name] for name in DOMAINS.names] for mixture in chosen])
    np.testing.assert_allclose(rows[0], DOMAINS.natural_weights)
    assert chosen[1] == pytest.approx(document(PROXIES)["weights"])
    values = [losses(row).sum() for row in rows[2:]]
    assert values == sorted(values, reverse=True)
    apart = np.abs(rows[:, None] - rows).sum(axis=2) + np.eye(6)
    assert apart.min() > 0.05


def test_anchors_too_few_to_tell_their_size_apart_are_named_and_the_rest_goes_on() -> None:
    few = anchors((0.5, 0.5))[:2]
    found = document((*PROXIES, *few))
    assert found["at_target"]["transfer"] == "unknown"
    assert found["anchors_left_out"] == [
        {"parameters": 9.0, "tokens": 4.0, "mixtures": 2, "mixtures_needed": 3}
    ]
    (said,) = [one["message"] for one in found["warnings"] if one["code"] == "sizes_not_apart"]
    assert "9 times the proxies' parameters and 4 times their tokens are of 2 mixtures, and 3 tell" in said
    check_warnings(found, [*found["weights"], *(run.id for run in (*PROXIES, *few))])
