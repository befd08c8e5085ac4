"""Every sampler as a function of the round it is to draw; `mixing.parts` says what each is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixing.answer.regret import OpenLaw
from mixing.errors import Infeasible, InvalidSetting, InvalidWeights
from mixing.laws.composed import through
from mixing.laws.fitting import fit
from mixing.laws.learning import gather_over
from mixing.laws.regression import Fitted
from mixing.parts import REGRESSIONS
from mixing.runs.evidence import Evidence
from mixing.swarm import acquisition, design, dirichlet, entropy, grid
from mixing.swarm.sample import Round, SampledRun
from mixing.swarm.space import SwarmSpace, into_space


def two_level(round_: Round) -> tuple[SampledRun, ...]:
    """Dirichlet over sources, then over topics."""
    return round_.sampled(dirichlet.sample(round_.space, round_.runs, round_.generator, round_.strengths))


def tempered_dirichlet(round_: Round) -> tuple[SampledRun, ...]:
    """Dirichlet around the square root of the prior."""
    weights = dirichlet.sample_tempered(round_.space, round_.runs, round_.generator, round_.strengths)
    return round_.sampled(weights)


def exponential_grid(round_: Round) -> tuple[SampledRun, ...]:
    """Powers of one half of each domain's largest share."""
    return round_.sampled(grid.sample(round_.space, round_.runs, round_.generator))


POOL = 8
"""Two-level draws a design chooses one run from; fewer where that would be more than `LARGEST_POOL`."""
LARGEST_POOL = 4096


def d_optimal(round_: Round) -> tuple[SampledRun, ...]:
    """Of many two-level draws those that tell a law most together."""
    return _design(round_, design.d_optimal, design.log_features)


def maximin(round_: Round) -> tuple[SampledRun, ...]:
    """Of many two-level draws those farthest from each other."""
    return _design(round_, design.maximin, design.log_weights)


def _design(
    round_: Round,
    choose: Callable[[np.ndarray, int, np.ndarray], np.ndarray],
    features: Callable[[np.ndarray], np.ndarray],
) -> tuple[SampledRun, ...]:
    """By the log-weights, as a law sees them.

    Older runs, and those of the rounds before, count as chosen, so new ones are drawn where those say little.
    """
    count = min(POOL * round_.runs, max(2 * round_.runs, LARGEST_POOL))
    pool = round_.within(dirichlet.sample(round_.space, count, round_.generator, round_.strengths))
    chosen = choose(features(round_.over_contents(pool)), round_.runs, features(round_.trained()))
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
        drawn = dirichlet.sample(round_.space, further, round_.generator, round_.strengths)
        weights = np.concatenate([weights, drawn])
    return round_.sampled(weights)


def perturbed(round_: Round) -> tuple[SampledRun, ...]:
    """AutoScale's runs at the round's budget: half the proxy's tokens, then all of them."""
    budget = 2.0 ** (round_.number - len(round_.question.rounds) + 1)
    question, space = round_.question, round_.space
    if question.limits.sharing:  # moved afterwards, a run would not be of one domain's tokens any more
        space = space.with_caps(question.space.pull_back_caps(question.limits.separate_caps)[0])
    weights, tokens, held = perturbed_runs(space, budget, round_.generator)
    if round_.runs != len(weights):
        raise InvalidSetting(
            f"each budget takes {len(weights)} runs, two a domain and the base, not {round_.runs}",
            field="runs",
        )
    if held:
        raise Infeasible(
            f"the caps or shares leave {', '.join(held)} no room to be raised and lowered by a tenth, so"
            " the runs could not tell what they are worth; raise the repetition cap, lower the target or drop the"
            " shares",
            field="repetition_cap",
            names=held,
        )
    return round_.sampled(weights, tokens)


FACTORS = (3.0, 1 / 3)
"""What a domain's tokens are multiplied by; the paper writes 1/3, its code evaluates the curve at 1/5, 1 and 3."""


def perturbed_runs(
    space: SwarmSpace, base_tokens: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """AutoScale's swarm (arXiv 2407.20177): a base mixture, and each domain's tokens raised and lowered in turn.

    2d + 1 runs for d domains that are not pinned: the base, which is the natural distribution brought into the space,
    then for each domain in canonical order one run with three times its tokens and one with a third, the other
    domains' tokens unchanged. So the runs differ in total tokens, which the law per domain is fitted to.

    A factor that would take any weight out of the space is brought as near to 1 as keeps all inside. Pinned
    domains keep their weight, so their tokens follow the total.

    Returns:
        (2d + 1, m) mixtures, (2d + 1,) training tokens of each, and the domains whose caps or minimum weights leave a
        factor within 10% of 1 on either side, so that the run says nothing about them.

    Raises:
        InvalidWeights: a domain has no weight in the base, so it cannot be multiplied.
    """
    centre = into_space(space, space.prior[None], generator)[0]
    free = np.flatnonzero(space.drawn)
    names = space.domains.names
    if absent := [names[column] for column in free if centre[column] == 0]:
        raise InvalidWeights(
            f"the base gives nothing to {', '.join(absent)}, and nothing cannot be multiplied",
            field="base",
            names=absent,
        )
    weights, tokens, held = [centre], [base_tokens], set()
    for column in free.tolist():
        for factor in np.clip(FACTORS, *_factor_range(space, centre, column)).tolist():
            mass = space.free_mass + (factor - 1) * centre[column]
            perturbed = centre * np.where(np.arange(len(space)) == column, factor, 1.0)
            weights.append(np.where(space.drawn, perturbed * (space.free_mass / mass), space.pinned))
            tokens.append(base_tokens * mass / space.free_mass)
            if 0.9 < factor < 1.1:
                held.add(names[column])
    return into_space(space, np.array(weights), generator), np.array(tokens), tuple(sorted(held))


def _factor_range(space: SwarmSpace, centre: np.ndarray, column: int) -> tuple[float, float]:
    """Least and largest factor on one domain's tokens that keeps every weight within its bounds.

    With free mass F and factor k on p_j the free weights are divided by S = 1 + (k - 1) p_j / F: p_j becomes
    k p_j / S and the others p_i / S.
    """
    mass, weight = space.free_mass, centre[column]
    others = space.drawn & (np.arange(len(centre)) != column)

    def reaching(bound: float) -> float:
        return bound * (mass - weight) / (weight * (mass - bound)) if bound < mass else np.inf

    fullest = (centre[others] / space.upper[others]).max(initial=0.0)
    barest = np.divide(
        centre[others], space.lower[others], out=np.full(others.sum(), np.inf), where=space.lower[others] > 0
    ).min(initial=np.inf)
    least = max(reaching(space.lower[column]), 1 + (fullest - 1) * mass / weight)
    most = min(reaching(space.upper[column]), 1 + (barest - 1) * mass / weight)
    return min(least, 1.0), max(most, 1.0)


def predicted_best(round_: Round) -> tuple[SampledRun, ...]:
    """First Dirichlet draws, then near the best that the regression predicts."""
    if round_.number == 0:
        return round_.sampled(acquisition.first_batch(round_.space, round_.runs, round_.generator))
    learned = _learned(round_)
    weights = acquisition.next_batch(
        learned.predict, learned.asked, round_.space, round_.runs, round_.generator
    )
    return round_.sampled(weights)


_TAKABLE = 256
"""Mixtures that are looked at for which may be taken: the answer, the refits' optima, and those of draws."""
_PROSPECTS = 512
"""Mixtures that may be trained next: so many of the whole space, and as many near those that may be taken."""


def decisive(round_: Round) -> tuple[SampledRun, ...]:
    """First what tells a law most, then what is expected to change most which mixture is taken.

    Runs of a swarm cost the same, so the most for a run is the most for a device-hour.
    """
    proposal = round_.proposal
    if proposal is None or proposal.optima is None or proposal.regret is None:
        return d_optimal(round_)
    space, way, generator = round_.space, round_.question.space, round_.generator
    law = OpenLaw.of(
        proposal.problem, proposal.learned, proposal.solution.weights, proposal.optima, generator
    )
    takable = law.rivals()[:_TAKABLE]
    near = design.perturbed_around(space, way.collapse(takable), _PROSPECTS, generator)
    wide = design.candidate_pool(space, _PROSPECTS, generator)
    weights = acquisition.untrained(round_.within(np.concatenate([near, wide])), round_.asked)
    if len(weights) < round_.runs:
        return d_optimal(round_)
    mixtures = np.concatenate([takable, way.expand(weights)])
    values = law.objectives(mixtures)
    known = len(takable)
    noise = proposal.regret.noise or 0.0
    chosen = acquisition.change_decision(values[:, :known], values[:, known:], noise, round_.runs)
    return round_.sampled(weights[chosen])


FIDELITIES = (0.25, 1.0)
"""Shares of the proxy's tokens a run of ADMIRE-BayesOpt may train: what it costs, and how much it tells."""


def max_value_entropy(round_: Round) -> tuple[SampledRun, ...]:
    """First Dirichlet draws, two in three of them short; then what tells most of the best mixture per token."""
    if round_.number == 0:
        weights = acquisition.first_batch(round_.space, round_.runs, round_.generator)
        return round_.sampled(
            weights, np.where(np.arange(len(weights)) % 3 == 0, FIDELITIES[1], FIDELITIES[0])
        )
    learned = _learned(round_)
    pool = design.candidate_pool(round_.space, 1024, round_.generator)
    best = pool[np.argsort(learned.predict(pool)[0])[:8]]
    near = design.perturbed_around(round_.space, best, 1024, round_.generator)
    candidates = acquisition.untrained(np.concatenate([pool, near]), learned.asked)
    shares = np.repeat(FIDELITIES, len(candidates))
    prospects = acquisition.Prospects(
        np.tile(candidates, (len(FIDELITIES), 1)),
        costs=shares,
        correlations=np.repeat([learned.correlation(share) for share in FIDELITIES], len(candidates)),
    )
    lowest = float(learned.predict(learned.trained)[0].min())
    chosen = acquisition.choose_batch(learned.predict, lowest, prospects, round_.runs, round_.generator)
    return round_.sampled(prospects.weights[chosen], shares[chosen])


@dataclass(frozen=True)
class _Learned:
    """The regression fitted to the rounds before, as one function of what is sampled.

    Attributes:
        evidence: the runs so far.
        law: of (q,) weights.
        trained: (K, q) the runs so far, as the nearest such weights.
        asked: (n, q) what was asked of them, which whole rows came near to, and what older ones trained.
    """

    evidence: Evidence
    law: Fitted
    trained: np.ndarray
    asked: np.ndarray

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
    evidence = gather_over(question, space, round_.evidence)
    law = fit(part, evidence.table)
    way = question.space
    trained = way.collapse(space.onto_newest(evidence.weights)[0])
    older = trained[evidence.table.older]
    asked = np.concatenate([round_.asked, older])
    return _Learned(evidence, through(law, space.newest.matrix @ way.matrix), trained, asked)
