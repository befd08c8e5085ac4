"""What the evidence of an answer is worth: ``python -m benchmarks.evidence --data DIR --json FILE``.

Truths are laws fitted to the 512 published RegMix runs (DIR holds the files), of two shapes, in random subsets of
whose mixtures every run is measured anew with the noise that the fit leaves. Of each subset an answer by the default
method, for the mean of the 13 losses:

- coverage: share of the 90% intervals of a task's gain over the natural distribution that hold it, over all tasks;
  `lowest_task_coverage` of one task; `objective_coverage` of the objective.
- runs_to_decision: fewest runs whose answers gain on average as much as those of 512 random runs, within a hundredth.
- probability: mean stated probability of being better, and the share that is; over the tasks of all answers.
- at the target: each task's gain there is a factor of that at the proxies, drawn with the published spread
  (`mixing.laws.transfer`); coverage and median width of the interval without anchors and with four half way.
- warning: share of eight anchors' sets of which `weak_transfer` is said, where sizes agree with a rank correlation of
  .55 and of .95, on average over the tasks.

A long run belongs to a quiet machine; ``--worlds 2 --runs 34`` is a small form.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.regmix import RegMix, load
from mixing.answer.proposal import anchor_mixtures, propose
from mixing.domains import Domains
from mixing.laws.exponential.log_linear import LogLinearLaw
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.regression import Fitted
from mixing.laws.transfer import SHARED, prior
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.terms import Target

RUNS = (34, 40, 64, 512)
WORLDS = 10
SCALE, HALF = (64.0, 64.0), (8.0, 8.0)
AGREEMENTS = (0.55, 0.95)
ANCHORS, JUDGES = 4, 8
_90 = 1.6449

Document = dict[str, Any]


@dataclass(frozen=True)
class Truth:
    """A law that is taken for true, and how its measurements scatter.

    Attributes:
        name: of its shape.
        law: of all tasks.
        noise: (T,) standard deviation of a measurement.
        tasks: names of the T losses.
        domains: with tokens in proportion to the swarm's mean mixture.
        mixtures: (512, m) that runs are drawn from, over the domains' own order.
    """

    name: str
    law: Fitted
    noise: np.ndarray
    tasks: tuple[str, ...]
    domains: Domains
    mixtures: np.ndarray

    def runs(
        self,
        mixtures: np.ndarray,
        generator: np.random.Generator,
        factors: np.ndarray | float = 1.0,
        **scale: float,
    ) -> tuple[RunEvidence, ...]:
        """(n, m) mixtures measured, at another size with what they differ by times (T,) factors."""
        values = self.law.mean(mixtures)
        values = values.mean(0) + factors * (values - values.mean(0))
        values = values + self.noise * generator.standard_normal(values.shape)
        return tuple(
            replace(
                RunEvidence(
                    f"{'anchor' if scale else 'run'}{k}",
                    self.domains.mixture(row),
                    dict(zip(self.tasks, map(float, own), strict=True)),
                    dict(zip(self.tasks, map(float, self.noise), strict=True)),
                ),
                **scale,
            )
            for k, (row, own) in enumerate(zip(mixtures, values, strict=True))
        )

    def gains(self, document: Mapping[str, Any]) -> np.ndarray:
        """(T,) true gains of an answer's mixture over the natural distribution."""
        names = self.domains.names
        both = np.array([[document[kind][name] for name in names] for kind in ("natural", "weights")])
        natural, proposed = self.law.mean(both)
        return natural - proposed


def truths(data: RegMix) -> list[Truth]:
    """Both shapes, fitted to all training runs; the noise is the median residual, as of a normal distribution."""
    domains = Domains.of(dict(zip(data.domains, data.train_weights.mean(0) * 1e12, strict=True)))
    columns = [data.domains.index(name) for name in domains.names]
    mixtures = data.train_weights[:, columns]
    found = []
    for name, family in (("effective power", EffectivePowerLaw()), ("log-linear", LogLinearLaw())):
        law = family.fit(mixtures, data.train_metrics)
        away = np.abs(law.mean(mixtures) - data.train_metrics)
        noise = np.median(away, axis=0) / norm.ppf(0.75)
        found.append(Truth(name, law, np.minimum(noise, 0.05), data.tasks, domains, mixtures))
    return found


def question_of(truth: Truth, seed: int) -> Question:
    """For the mean of all tasks, and a target of 64 times the parameters and the tokens."""
    tokens = float(truth.domains.tokens.sum())
    return Question(
        domains=truth.domains,
        objective=dict.fromkeys(truth.tasks, 1.0),
        target_tokens=tokens,
        target=Target(SCALE[0] * 1e6, tokens),
        proxy_parameters=1e6,
        proxy_tokens=tokens / SCALE[1],
        seed=seed,
    )


def factors_of(truth: Truth, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(T,) what gains are worth half way and at the target, as spread as published ones are."""
    at = np.log2(np.array([HALF, SCALE]))
    root = np.linalg.cholesky(prior(at, at))
    common, own = generator.standard_normal(2), generator.standard_normal((2, len(truth.tasks)))
    logs = root @ (np.sqrt(SHARED) * common[:, None] + np.sqrt(1 - SHARED) * own)
    return np.exp(logs[0]), np.exp(logs[1])


def answer(truth: Truth, runs: int, seed: int, with_target: bool) -> Document:
    """One subset: what was said of its answer, and what is true."""
    generator = np.random.default_rng([runs, seed])
    chosen = truth.mixtures[generator.permutation(len(truth.mixtures))[:runs]]
    swarm, question = truth.runs(chosen, generator), question_of(truth, seed)
    document = propose(question, swarm).to_dict()
    gains = truth.gains(document)
    tasks = {row["name"]: row for row in document["tasks"]}
    bounds = np.array([tasks[name]["gain_interval"] for name in truth.tasks])
    low, high = document["objective"]["gain_interval"]
    deviation = (bounds[:, 1] - bounds[:, 0]) / (2 * _90)
    found: Document = {
        "inside": (bounds[:, 0] <= gains) & (gains <= bounds[:, 1]),
        "objective_inside": low <= gains.mean() <= high,
        "gain": gains.mean(),
        "stated": norm.cdf(bounds.mean(1) / deviation),
        "better": gains > 0,
    }
    if with_target:
        half, goal = factors_of(truth, generator)
        mixtures = np.array([list(one.values()) for one in anchor_mixtures(question, swarm, ANCHORS)])
        anchors = truth.runs(mixtures, generator, half, size=HALF[0], tokens=HALF[1])
        anchored = propose(question, (*swarm, *anchors)).to_dict()
        for name, made in (("alone", document), ("anchored", anchored)):
            low, high = made["at_target"]["objective"]["interval"]
            found[name] = low <= float((goal * truth.gains(made)).mean()) <= high, high - low
        found["warned"] = {
            agreement: _warned(truth, question, swarm, agreement, generator) for agreement in AGREEMENTS
        }
    return found


def _warned(
    truth: Truth,
    question: Question,
    swarm: Sequence[RunEvidence],
    agreement: float,
    generator: np.random.Generator,
) -> bool:
    """Whether eight anchors that agree with the truth by so much make the warning."""
    rows = truth.mixtures[generator.permutation(len(truth.mixtures))[:JUDGES]]
    spread = truth.law.mean(truth.mixtures).std(0)
    # The rank correlation of two normal variables of correlation r is 6 / pi asin(r / 2).
    correlation = 2 * np.sin(np.pi * agreement / 6)
    blurred = replace(truth, noise=spread * np.sqrt(1 / correlation**2 - 1))
    anchors = blurred.runs(rows, generator, size=HALF[0], tokens=HALF[1])
    warnings = propose(question, (*swarm, *anchors)).to_dict()["warnings"]
    return any(warning["code"] == "weak_transfer" for warning in warnings)


def measure(truth: Truth, counts: Sequence[int], worlds: int) -> Document:
    """All cells of a truth."""
    cells = {
        runs: [answer(truth, runs, seed, runs == counts[0]) for seed in range(worlds)] for runs in counts
    }
    first = cells[counts[0]]
    inside = np.array([one["inside"] for one in first])
    gains = {runs: float(np.mean([one["gain"] for one in cells[runs]])) for runs in counts}
    enough = [runs for runs in counts if gains[runs] >= 0.99 * gains[max(counts)]]
    return {
        "runs": counts[0],
        "worlds": worlds,
        "coverage": round(float(inside.mean()), 3),
        "lowest_task_coverage": round(float(inside.mean(0).min()), 3),
        "objective_coverage": float(np.mean([one["objective_inside"] for one in first])),
        "gains": {str(runs): round(gain, 4) for runs, gain in gains.items()},
        "runs_to_decision": min(enough),
        "probability": {
            "stated": round(float(np.mean([one["stated"] for one in first])), 3),
            "true": round(float(np.mean([one["better"] for one in first])), 3),
        },
        "target": {
            name: {
                "coverage": float(np.mean([one[name][0] for one in first])),
                "width": round(float(np.median([one[name][1] for one in first])), 4),
            }
            for name in ("alone", "anchored")
        },
        "warned": {
            str(agreement): float(np.mean([one["warned"][agreement] for one in first]))
            for agreement in AGREEMENTS
        },
    }


def main() -> None:
    """Print and write what was measured, by truth; `default` is over all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the RegMix files")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--runs", type=int, nargs="+", default=list(RUNS))
    parser.add_argument("--worlds", type=int, default=WORLDS)
    arguments = parser.parse_args()
    found = {}
    for truth in truths(load(arguments.data)):
        found[truth.name] = measure(truth, sorted(arguments.runs), arguments.worlds)
        print(truth.name, json.dumps(found[truth.name], indent=1), flush=True)
    each = list(found.values())
    found["default"] = {
        "coverage": float(np.mean([one["coverage"] for one in each])),
        "lowest_task_coverage": min(one["lowest_task_coverage"] for one in each),
        "runs_to_decision": max(one["runs_to_decision"] for one in each),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
