"""What rounds are worth, and what is said of their answer: ``python -m benchmarks.rounds --data DIR --json FILE``.

The truths are those of `benchmarks.evidence`: laws fitted to the published RegMix runs, measured with the noise that
the fit leaves. Of each world the mixture by 40 random runs of the swarm, by one design of 40 (the default), and by 28
of a design and then rounds of 6 where they are expected to change the decision most. Gains are of the mean of all
losses over the natural distribution; `best` is the gain of the truth's own minimum. `regret` is what the answer was
expected to give away, and `given_away` what it does: `best` less its gain.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence import Truth, question_of, truths
from benchmarks.regmix import load
from mixing.answer.proposal import propose
from mixing.methods import combine, method_named
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.solve.exact import solve
from mixing.solve.problem import MixtureProblem, Objective
from mixing.swarm.sample import sample_round

ROUNDS = (28, 6, 6)

Document = dict[str, Any]


def best_gain(truth: Truth, question: Question) -> float:
    """Of the mixture that is best in truth, under the caps and without a KL term."""
    shares, natural = np.full(len(truth.tasks), 1 / len(truth.tasks)), question.domains.natural_weights
    objective = Objective(truth.law, shares, natural, 0.0)
    found = solve(MixtureProblem(objective, question.space, question.limits.caps)).weights
    losses = truth.law.mean(np.stack([natural, found])).mean(axis=1)
    return float(losses[0] - losses[1])


def answered(truth: Truth, question: Question, runs: tuple[RunEvidence, ...]) -> tuple[float, float]:
    """The true gain of what is proposed, and the regret that is expected of it."""
    proposal = propose(question, runs)
    assert proposal.regret is not None, "there are runs to hold out"
    return float(truth.gains(proposal.to_dict()).mean()), proposal.regret.expected


def sampled(
    truth: Truth,
    question: Question,
    number: int,
    before: tuple[RunEvidence, ...],
    generator: np.random.Generator,
) -> tuple[RunEvidence, ...]:
    """A round's runs, measured."""
    drawn = sample_round(question, number, before)
    mixtures = np.array([run.mixture.align(truth.domains.names) for run in drawn])
    runs = truth.runs(mixtures, generator)
    return tuple(replace(run, id=f"round{number}-{run.id}") for run in runs)


def world(truth: Truth, seed: int) -> dict[str, tuple[float, float]]:
    """Gain and expected regret by how the runs were chosen."""
    generator = np.random.default_rng([7, seed])
    question = replace(question_of(truth, seed), target=None)
    chosen = truth.mixtures[generator.permutation(len(truth.mixtures))[: sum(ROUNDS)]]
    found = {"random": answered(truth, question, truth.runs(chosen, generator))}
    design = sampled(truth, replace(question, rounds=(sum(ROUNDS),)), 0, (), generator)
    found["design"] = answered(truth, question, design)
    recipe, runs = combine(method_named(question.method), sampler="decisive"), ()
    adaptive = replace(question, rounds=ROUNDS, recipe=recipe)
    for number in range(len(ROUNDS)):
        runs += sampled(truth, adaptive, number, runs, generator)
        found[f"rounds, {len(runs)} runs"] = answered(truth, question, runs)
    return found


def main() -> None:
    """Print and write what was measured, by truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the RegMix files")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--worlds", type=int, default=4)
    arguments = parser.parse_args()
    result: Document = {}
    for truth in truths(load(arguments.data)):
        best = best_gain(truth, question_of(truth, 0))
        worlds = [world(truth, seed) for seed in range(arguments.worlds)]
        result[truth.name] = {"worlds": len(worlds), "best": round(best, 4)}
        for name in worlds[0]:
            gain, regret = np.mean([one[name] for one in worlds], axis=0).tolist()
            row = {"gain": gain, "regret": regret, "given_away": best - gain}
            result[truth.name][name] = {key: round(value, 4) for key, value in row.items()}
        print(truth.name, json.dumps(result[truth.name], indent=1), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
