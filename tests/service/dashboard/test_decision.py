"""The verdict of the first screen: green only where all that is known is good."""

from typing import Any

import pytest

from service.dashboard.decision import between_words, decide, gain_words, losers, places_for, winners
from service.dashboard.evidence import Evidence
from tests.service.dashboard.store import TOKENS, evidence

TARGET = {"parameters": 1e9, "tokens": 2e10, "transfer": "measured"}


def told(
    bounds: tuple[float, float] | None = (0.02, 0.06), target: str | None = None, **more: Any
) -> Evidence:
    document = evidence(TOKENS)
    document["objective"]["gain_interval"] = bounds
    document["tasks"] = [{**task, "gain": 0.03, "gain_interval": [0.01, 0.05]} for task in document["tasks"]]
    document["warnings"] = [{"code": code, "message": code} for code in more.pop("warned", ())]
    if target:
        interval = more.pop("interval", (0.01, 0.05))
        whole = {"gain": 0.03, "interval": interval, "probability_better": 0.95}
        document["at_target"] = {**TARGET, "transfer": target, "objective": whole}
    document["tasks"] += more.pop("tasks", [])
    return Evidence.model_validate({**document, **more})


def lost(gain: float, low: float, high: float, weight: float = 0.0) -> dict[str, Any]:
    at = {"natural": 2.0, "proposed": 2.0 - gain, "gain": gain, "gain_interval": [low, high]}
    return {"name": "held-out/code:c", "weight": weight, **at}


@pytest.mark.parametrize(
    ("found", "words", "tone"),
    [
        (told(target="measured"), "Adopt", "good"),
        (told(), "Check with a launch", "open"),
        (told(target="unknown"), "Check with a launch", "open"),
        (told(target="unknown", interval=(-0.01, 0.2)), "Not yet: the evidence is of one size", "open"),
        (told(target="measured", interval=(-0.01, 0.2)), "Check with a launch", "open"),
        (told((-0.01, 0.05), "measured"), "Not yet", "open"),
        (told((-0.05, -0.01), "measured"), "Keep the natural distribution", "bad"),
        (told(None, "measured"), "Not yet", "open"),
        (told(target="measured", warned=["low_rank_correlation"]), "Not yet", "open"),
        (told(target="measured", warned=["beyond_the_runs"]), "Check with a launch", "open"),
        (told(target="measured", warned=["weak_transfer"]), "Check with a launch", "open"),
        (told(target="measured", tasks=[lost(-0.86, -0.9, -0.8)]), "Check with a launch", "open"),
        (told(target="measured", tasks=[lost(-0.01, -0.1, 0.09)]), "Adopt", "good"),
        (told(objective=None), "Nothing to decide by", "open"),
    ],
)
def test_the_verdict_says_what_to_do(found: Evidence, words: str, tone: str) -> None:
    decision = decide(found)
    assert (decision.words, decision.tone) == (words, tone)
    assert decision.reasons


def test_a_mixture_of_nearly_one_domain_is_never_good_news() -> None:
    rest = {"tokens": 1e6, "natural": 0.5, "epochs": 1.0, "natural_epochs": 1.0}
    domains = [{"name": "code:python", "weight": 0.986, **rest}, {"name": "code:c", "weight": 0.014, **rest}]
    decision = decide(told(target="measured", domains=domains, tasks=[lost(-0.86, -0.9, -0.8)]))
    assert decision.tone == "open"
    said = " ".join(reason.words for reason in decision.reasons)
    assert "nearly all code:python (98.60%, natural 50.00%)" in said
    assert "One task is certain to get worse, most held-out/code:c by 0.86 BPB." in said


@pytest.mark.parametrize(
    ("error", "places"), [(0.04, 2), (0.019, 3), (0.2, 1), (3.0, 0), (1e-9, 6), (None, 4), (0.0, 4)]
)
def test_a_number_has_the_digits_its_error_allows(error: float | None, places: int) -> None:
    assert places_for(error) == places


def test_gains_are_said_with_their_sign_and_never_as_powers_of_ten() -> None:
    assert gain_words(0.04123, (0.0012, 0.0812), "BPB") == "+0.04 BPB"
    assert gain_words(-0.04123, (-0.06, -0.022)) == "−0.041"
    assert gain_words(1e-9, (-1e-8, 1e-8)) == "0.000000"
    assert between_words((0.0225, 0.0613)) == "+0.022 to +0.061"


def test_losers_and_winners_have_the_certain_ones_first() -> None:
    found = told(tasks=[lost(-0.5, -1.2, 0.2), {**lost(-0.1, -0.15, -0.05), "name": "sure"}])
    assert [task.name for task in losers(found)] == ["sure", "held-out/code:c"]
    assert all(task.gain > 0 for task in winners(found))
    assert losers(told()) == []
