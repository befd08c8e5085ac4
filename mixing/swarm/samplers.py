"""Every sampler as a function of the round it is to draw; `mixing.swarm.catalogue` says what each is."""

from dataclasses import dataclass

import numpy as np

from mixing.errors import Infeasible, InvalidSetting
from mixing.laws.catalogue import REGRESSIONS
from mixing.laws.composed import through
from mixing.laws.fitting import fit
from mixing.laws.learning import gather_over
from mixing.laws.regression import Fitted
from mixing.runs.evidence import Evidence
from mixing.swarm import (
    acquisition,
    climb,
    design,
    dirichlet,
    entropy,
    grid,
    perturbation,
    tempered,
)
from mixing.swarm.filling import distinct
from mixing.swarm.sample import Round, SampledRun


def two_level(round_: Round) -> tuple[SampledRun, ...]:
    """Dirichlet over sources, then over topics."""
    settings = dirichlet.TwoLevelDirichlet(strengths=round_.strengths)
    return round_.sampled(dirichlet.sample(round_.space, round_.runs, round_.generator, settings))


def tempered_dirichlet(round_: Round) -> tuple[SampledRun, ...]:
    """Dirichlet around the square root of the prior."""
    settings = tempered.TemperedDirichlet(strengths=round_.strengths)
    return round_.sampled(tempered.sample(round_.space, round_.runs, round_.generator, settings))


def exponential_grid(round_: Round) -> tuple[SampledRun, ...]:
    """Powers of one half of each domain's largest share."""
    return round_.sampled(grid.sample(round_.space, round_.runs, round_.generator))


POOL = 8
"""Two-level draws a design chooses one run from; fewer where that would be more than `LARGEST_POOL`."""
LARGEST_POOL = 4096


def d_optimal(round_: Round) -> tuple[SampledRun, ...]:
    """Of many two-level draws those that tell a law most together."""
    return _design(round_, "d-optimal")


def maximin(round_: Round) -> tuple[SampledRun, ...]:
    """Of many two-level draws those farthest from each other."""
    return _design(round_, "maximin")


def _design(round_: Round, criterion: str) -> tuple[SampledRun, ...]:
    """By the log-weights, as a law sees them.

    Older runs count as chosen, so new ones are drawn where those say little.
    """
    settings = dirichlet.TwoLevelDirichlet(strengths=round_.strengths)
    count = min(POOL * round_.runs, max(2 * round_.runs, LARGEST_POOL))
    pool = dirichlet.sample(round_.space, count, round_.generator, settings)
    settled = design.Design(criterion, "log")
    chosen = design.choose(round_.over_contents(pool), round_.runs, settled, round_.older())
    return round_.sampled(pool[chosen])


def entropy_weighted(round_: Round) -> tuple[SampledRun, ...]:
    """One run for each entropy; more than four are two-level draws, so that any regression can be fitted."""
    if round_.entropies is None:
        raise InvalidSetting(
            "the entropy sampler needs the entropies of the domains' tokens", field="sampler"
        )
    measured = {name: entropy.Entropies(*values) for name, values in round_.entropies.items()}
    weights = entropy.entropy_weighted(round_.space, measured, round_.generator)[: round_.runs]
    further = round_.runs - len(weights)
    if further:
        settings = dirichlet.TwoLevelDirichlet(strengths=round_.strengths)
        drawn = dirichlet.sample(round_.space, further, round_.generator, settings)
        weights = np.concatenate([weights, drawn])
    return round_.sampled(weights)


def perturbed(round_: Round) -> tuple[SampledRun, ...]:
    """AutoScale's runs at the round's budget: half the proxy's tokens, then all of them."""
    budget = 2.0 ** (round_.number - len(round_.question.rounds) + 1)
    design_runs = perturbation.perturbed_runs(round_.space, budget, round_.generator)
    if round_.runs != len(design_runs.weights):
        raise InvalidSetting(
            f"each budget takes {len(design_runs.weights)} runs, two a domain and the base, not {round_.runs}",
            field="runs",
        )
    if design_runs.held:
        raise Infeasible(
            f"the caps or shares leave {', '.join(design_runs.held)} no room to be raised and lowered by a tenth, so"
            " the runs could not tell what they are worth; raise the repetition cap, lower the target or drop the"
            " shares",
            field="repetition_cap",
            names=design_runs.held,
        )
    return round_.sampled(design_runs.weights, design_runs.tokens)


def predicted_best(round_: Round) -> tuple[SampledRun, ...]:
    """First Dirichlet draws, then near the best that the regression predicts."""
    if round_.number == 0:
        return round_.sampled(climb.first_batch(round_.space, round_.runs, round_.generator))
    learned = _learned(round_)
    existing = learned.trained
    return round_.sampled(
        climb.next_batch(learned.predict, existing, round_.space, round_.runs, round_.generator)
    )


FIDELITIES = (0.25, 1.0)
"""Shares of the proxy's tokens a run of ADMIRE-BayesOpt may train: what it costs, and how much it tells."""


def expected_improvement(round_: Round) -> tuple[SampledRun, ...]:
    """First Dirichlet draws, two in three of them short; then what is expected to improve most per token."""
    if round_.number == 0:
        weights = climb.first_batch(round_.space, round_.runs, round_.generator)
        return round_.sampled(
            weights, np.where(np.arange(len(weights)) % 3 == 0, FIDELITIES[1], FIDELITIES[0])
        )
    learned = _learned(round_)
    pool = design.candidate_pool(round_.space, 1024, round_.generator)
    best = pool[np.argsort(learned.predict(pool)[0])[:8]]
    near = design.perturbed_around(round_.space, best, 1024, round_.generator)
    candidates = np.concatenate([pool, near])
    fresh = distinct(np.concatenate([learned.trained, candidates]), 1e-5)[len(learned.trained) :]
    candidates = candidates[fresh]
    shares = np.repeat(FIDELITIES, len(candidates))
    prospects = acquisition.Prospects(
        np.tile(candidates, (len(FIDELITIES), 1)),
        costs=shares,
        correlations=np.repeat([learned.correlation(share) for share in FIDELITIES], len(candidates)),
    )
    surrogate = acquisition.Surrogate(learned.predict, float(learned.predict(learned.trained)[0].min()))
    settings = acquisition.Acquisition("max-value entropy")
    chosen = acquisition.choose_batch(surrogate, prospects, round_.runs, round_.generator, settings)
    return round_.sampled(prospects.weights[chosen], shares[chosen])


@dataclass(frozen=True)
class _Learned:
    """The regression fitted to the rounds before, as one function of what is sampled.

    Attributes:
        evidence: the runs so far.
        law: of (q,) weights.
        trained: (K, q) the runs so far, as the nearest such weights.
    """

    evidence: Evidence
    law: Fitted
    trained: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the objective, both (n,), at full fidelity."""
        mean, std = self.law.predict(weights)
        groups = self.evidence.groups
        # The tasks' errors come from the same runs, so their deviations are added: an upper bound.
        if not groups.worst:
            return groups.value(mean), std @ groups.column_weights
        worst = (mean @ groups.membership.T - groups.offsets).argmax(axis=1)
        return groups.value(mean), (std * groups.membership[worst]).sum(axis=1)

    def correlation(self, share: float) -> float:
        """Of what a run of that share of the tokens measures with what a full one would; 1 where nothing is known."""
        runs = self.evidence.table
        short = np.isclose(runs.tokens, share, rtol=1e-2) & runs.complete  # runs train whole tokens
        if share == 1 or short.sum() < 4:
            return 1.0
        measured = self.evidence.groups.value(runs.metrics[short])
        predicted = self.predict(self.trained[short])[0]
        if np.ptp(measured) == 0 or np.ptp(predicted) == 0:
            return 1.0
        return float(np.clip(np.corrcoef(measured, predicted)[0, 1], 0.05, 1.0))


def _learned(round_: Round) -> _Learned:
    question = round_.question
    if not question.objective:
        raise InvalidSetting("a round that learns from earlier ones needs the objective", field="objective")
    part, space = REGRESSIONS[question.parts.regression], question.reuse.evidence_space(question.domains)
    evidence = gather_over(space, part, round_.evidence, question.reuse.runs, question.specification)
    law = fit(part, evidence.table)
    way = question.space
    trained = way.collapse(space.onto_newest(evidence.weights)[0])
    return _Learned(evidence, through(law, space.newest.matrix @ way.matrix), trained)
