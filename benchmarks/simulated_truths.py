"""What holds where the truth is known: ``python -m benchmarks.simulated_truths [--regression R] [--json FILE]``.

Each truth is a family of worlds: six domains, five runs a domain, two tasks that count alike, an answer by the
default method with its default settings, or with another regression and the solver it brings. Of each world the gain
of the proposed mixture over the natural distribution is known, and the best there is within the caps. The table says,
over the worlds of a truth,

- held: the share of 90% intervals of the gain that hold it,
- width: their mean width, in units of the objective's standard deviation over the runs,
- claimed: predicted over true gain, of the means,
- share: the true gain of the answer over that of the best mixture, of the means,
- named: the share of worlds in which what is wrong was named, where something is.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mixing.answer.proposal import propose
from mixing.capped_simplex import into_capped_simplex
from mixing.domains import Domains
from mixing.methods import METHODS, combine
from mixing.objective import ObjectiveSpec
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.sense import Direction

DOMAINS, RUNS, TASKS = 6, 30, ("first", "second")
DRAWS = 40_000
"""Mixtures among which the best is taken; half of them around the best of the others."""
NOISE = 0.01
QUESTIONS = 100

Law = Callable[[np.ndarray], np.ndarray]
"""(n, m) mixtures to (n, T) true metrics."""


@dataclass(frozen=True)
class World:
    """A truth, what was measured of it, and what the answer should say of that.

    Attributes:
        law: lower is better.
        domains: with their tokens.
        weights: (K, m) of the runs.
        measured: (K, T), lower is better.
        warning: code of the warning that names what is wrong; None where nothing is.
        accuracy: whether the metrics are error rates, and are told as accuracies.
    """

    law: Law
    domains: Domains
    weights: np.ndarray
    measured: np.ndarray
    warning: str | None = None
    accuracy: bool = False


def power(weights: np.ndarray, likes: np.ndarray) -> np.ndarray:
    """The default law's own shape: a power of the useful data a task sees."""
    return 0.8 + 0.5 * (np.sqrt(weights + 5e-5) @ likes + 0.1) ** -0.5


def bumps(weights: np.ndarray, likes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Another shape: a loss that rises with the distance of the roots from what a task wants, and saturates."""
    away = np.square(np.sqrt(weights)[:, None] - np.sqrt(wanted)).sum(2)
    return 0.9 + 0.7 * (1 - np.exp(-1.5 * away)) + 0.05 * power(weights, likes)


def harmful(weights: np.ndarray, likes: np.ndarray) -> np.ndarray:
    """A power law in which the first domain does harm besides."""
    return power(weights, likes) + 0.6 * weights[:, :1]


def world(truth: str, generator: np.random.Generator) -> World:
    """One world of a truth."""
    names = [f"d{j}" for j in range(DOMAINS)]
    domains = Domains.of(dict(zip(names, 1e10 * generator.dirichlet(2 * np.ones(DOMAINS)), strict=True)))
    weights = generator.dirichlet(DOMAINS * domains.natural_weights, RUNS)
    likes = generator.uniform(0.05, 1.5, (DOMAINS, len(TASKS)))
    law: Law = partial(power, likes=likes)
    if truth == "law wrong":
        law = partial(bumps, likes=likes, wanted=generator.dirichlet(np.ones(DOMAINS), len(TASKS)))
    if truth == "a domain that hurts":
        law = partial(harmful, likes=likes)
    if truth == "replicates":
        weights = np.repeat(weights[: RUNS // 2], 2, axis=0)
    if truth == "a domain never varied":
        weights[:, 0] = 0
        weights /= weights.sum(axis=1, keepdims=True)
    noise = NOISE * generator.standard_normal((len(weights), len(TASKS)))
    made = World(law, domains, weights, law(weights) + noise)
    if truth == "heavy-tailed noise":
        return replace(made, measured=law(weights) + NOISE * generator.standard_t(2, noise.shape))
    if truth == "accuracies of 100 questions":
        rates = partial(_rate, law=law)
        counts = generator.binomial(QUESTIONS, rates(weights))
        return replace(made, law=rates, measured=np.maximum(counts, 0.5) / QUESTIONS, accuracy=True)
    if truth == "a diverged run":
        made.measured[generator.integers(RUNS)] = 50.0 if generator.random() < 0.5 else 1e9
        return replace(made, warning="doubtful_run")
    if truth == "a third not measured":
        made.measured[generator.random(noise.shape) < 1 / 3] = np.nan
    return replace(made, warning="domain_not_varied" if truth == "a domain never varied" else None)


def _rate(weights: np.ndarray, law: Law) -> np.ndarray:
    """An error rate that rises with a loss."""
    return 1 / (1 + np.exp(-6 * (law(weights) - 1.3)))


TRUTHS = (
    "law right",
    "law wrong",
    "a domain that hurts",
    "heavy-tailed noise",
    "replicates",
    "accuracies of 100 questions",
    "a diverged run",
    "a third not measured",
    "a domain never varied",
)


def asked(made: World, regression: str | None) -> tuple[Question, Sequence[RunEvidence]]:
    """The default method's question, and the runs as they are handed in."""
    spec = ObjectiveSpec(dict.fromkeys(TASKS, 1.0))
    if made.accuracy:
        higher: Mapping[str, Direction] = dict.fromkeys(TASKS, "higher")
        spec = replace(spec, directions=higher, turned=dict.fromkeys(TASKS, "error rate"))
    runs = [
        RunEvidence(
            f"run-{k}",
            dict(zip(made.domains.names, row, strict=True)),
            dict(zip(TASKS, 1 - values if made.accuracy else values, strict=True)),
            seed=k,
        )
        for k, (row, values) in enumerate(zip(made.weights.tolist(), made.measured, strict=True))
    ]
    method = METHODS["mixwright"]
    question = Question(
        recipe=combine(method, regression=regression),
        domains=made.domains,
        objective=spec,
        target_tokens=float(made.domains.tokens.sum()) / 2,
        repetition_cap=method.repetition_cap,
        kl_weight=method.kl_weight,
    )
    return question, runs


def best_gain(made: World, question: Question, generator: np.random.Generator) -> float:
    """The largest true gain found among mixtures within the caps."""
    natural, caps = made.domains.natural_weights, np.minimum(question.limits.caps, 1.0)

    def drawn(shapes: np.ndarray) -> np.ndarray:
        rows = generator.gamma(shapes) + 1e-12
        return into_capped_simplex(rows / rows.sum(1, keepdims=True), caps, caps)

    wide = drawn(np.ones((DRAWS // 2, DOMAINS)))
    centres = wide[np.argsort(made.law(wide).mean(1))[:50]]
    near = drawn(np.maximum(200 * centres[generator.integers(50, size=DRAWS // 2)], 0.05))
    lowest = min(made.law(rows).mean(1).min() for rows in (wide, near))
    return float(made.law(natural[None]).mean() - lowest)


def measure(truth: str, worlds: int, regression: str | None) -> dict[str, Any]:
    """The row of a truth."""
    rows = []
    for number in range(worlds):
        generator = np.random.default_rng([TRUTHS.index(truth), number])
        made = world(truth, generator)
        question, runs = asked(made, regression)
        proposal = propose(question, runs)
        document = proposal.to_dict()
        weights = np.array([[document["weights"][name] for name in made.domains.names]])
        natural = made.domains.natural_weights[None]
        gain = float((made.law(natural) - made.law(weights)).mean())
        low, high = document["objective"]["gain_interval"]
        codes = {warning["code"] for warning in document["warnings"]}
        rows.append(
            {
                "held": low <= gain <= high,
                "width": (high - low) / proposal.learned.evidence.spread,
                "predicted": document["objective"]["gain"],
                "gain": gain,
                "best": best_gain(made, question, generator),
                "named": made.warning in codes,
                "wrong": made.warning is not None,
            }
        )
    means: Mapping[str, float] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {
        "truth": truth,
        "worlds": worlds,
        "held": means["held"],
        "width": means["width"],
        "claimed": means["predicted"] / means["gain"],
        "share": means["gain"] / means["best"],
        "named": means["named"] if means["wrong"] else None,
    }


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=10, help="of each truth")
    parser.add_argument("--regression", help="by name; the default method's when left out")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    rows = []
    for truth in TRUTHS:
        rows.append(row := measure(truth, arguments.worlds, arguments.regression))
        named = "" if row["named"] is None else f", named {row['named']:.0%}"
        print(
            f"{truth}: held {row['held']:.0%}, width {row['width']:.2f}, claimed {row['claimed']:.2f} of the gain,"
            f" {row['share']:.0%} of the best{named}",
            flush=True,
        )
    if arguments.json:
        recipe = combine(METHODS["mixwright"], regression=arguments.regression)
        arguments.json.write_text(
            json.dumps({"regression": recipe.regression, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
