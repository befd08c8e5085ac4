"""How sure the predicted gain is, the optimism of having chosen the optimum on the same runs included.

The mixture p* is the minimum of the fitted law, so the law is too favourable there: among all mixtures the
solver picks the one whose error flatters it most (the winner's curse). An interval of the prediction at a fixed p*
does not see that. So the whole procedure is repeated without each fold of the runs, several divisions over:

1. Refit b, made without a fold, is solved under the same constraints, which gives p_b, and it claims the gain
   g_b(p_b) over the natural distribution.
2. The law fitted to all runs, which has seen the fold that b has not, judges it: g(p_b).
3. d_b = g(p_b) - g_b(p_b) is how far the claim was off, on average below 0: minus the optimism.

The refits differ by a delete-d jackknife's amount, so the deviation of d_b is scaled by sqrt((K - d) / d), 2 for five
folds (Shao and Wu, Annals of Statistics 17, 1989). The interval is g(p*) + mean d_b -+ 1.645 of those deviations.

That much holds where the law has the right shape. Where it has not, more runs shrink the interval and not the
error. So half its width is widened, in quadrature, by `MISFIT_SHARE` of the 90% quantile of |r_i - r_j| over
pairs of runs, r their held-out errors: how differently the law misses two mixtures. Of the runs only the third
nearest to the natural distribution or to the answer counts, and of the difference 0.4, because most runs lie
farther out, where a law misses most. Part of how pairs are missed is no shape but the
noise of the runs, which the refits' deviations count already. Where the runs tell it, what it makes of the quantile,
1.645 deviations of a difference of two runs, is taken out in quadrature. `python -m benchmarks.recipes` measures what
the intervals cover against a truth of another shape.

Laws of several shapes that predict the runs about as well and disagree about the gain show the same from the other
side: that the runs leave the shape open. Of an average of laws 1.645 of the deviation of the members' gains, each
counting by its share, is the part between the models of the variance of an averaged prediction (Hoeting et al.,
Statistical Science 14, 1999). It and the misfit are two estimates of one error, so the larger of them counts.

Of a domain that no run varied a law knows nothing. Where the answer moves it by d from the natural distribution, the
interval is widened, in quadrature again, by as much as moving another domain by d does at the natural distribution:
1.645 root mean squares over the domains that were varied.

What a law misses only where no run lies cannot be seen: the distance of the mixture to the nearest run is
reported beside it.
"""

import math
from dataclasses import dataclass

import numpy as np

from mixing.laws.composed import measured_alike
from mixing.laws.diagnostics import FEWEST_JUDGED, UNVARIED, weight_spread
from mixing.laws.exponential.log_linear import believable
from mixing.laws.fitting import Refits
from mixing.laws.regression import Fitted
from mixing.limits import BINDING
from mixing.runs.evidence import Evidence

CONFIDENCE = 0.9
MISFIT_SHARE = 0.4
"""Calibrated on the published RegMix swarm (17 domains, 13 losses); see the module."""
_FEWEST_NEAR = 8
"""Runs that count as near where a third of them is fewer."""
DEVIATIONS = 1.6449
"""Half the width of a 90% interval of a normal distribution, in standard deviations."""


@dataclass(frozen=True)
class GainIntervals:
    """90% intervals of the gain (natural minus proposed, positive is better).

    Attributes:
        bounds: (C + 1, 2), the objective's last.
        optimism: mean amount by which a claimed gain of the objective exceeds the true one.
        weight_spread: (m,) standard deviation of the optimum's weights over the refits, on the scale of all runs.
    """

    bounds: np.ndarray
    optimism: float
    weight_spread: np.ndarray


def gain_intervals(
    law: Fitted,
    refits: Refits,
    evidence: Evidence,
    optima: np.ndarray,
    natural: np.ndarray,
    proposed: np.ndarray,
) -> GainIntervals:
    """The intervals; see the module.

    Args:
        law: fitted to all runs.
        refits: its refits without each fold.
        evidence: what was fitted.
        optima: (B, m) the refits' own optima under the same constraints; (1, m) of one for all of them, which nobody
            has chosen by the runs.
        natural: (m,).
        proposed: (m,) the answer p*.
    """
    # What the law itself says of the two mixtures compared is the gain that is reported, so that is believed.
    stated = law.mean(np.stack([natural, proposed]))
    judged = _gain(law, evidence, natural, np.concatenate([optima, proposed[None]]), stated)
    each = np.broadcast_to(optima, (len(refits.laws), optima.shape[1]))
    claimed = np.stack(
        [
            _gain(own, evidence, natural, optimum[None], stated)[0]
            for own, optimum in zip(refits.laws, each, strict=True)
        ]
    )
    error = judged[:-1] - claimed
    scale = math.sqrt(refits.left / (1 - refits.left))
    with_objective = evidence.groups.with_value
    missed = with_objective(refits.predicted) - with_objective(refits.measured)
    away = np.minimum(np.abs(refits.weights - natural).sum(1), np.abs(refits.weights - proposed).sum(1))
    differently = _difference(missed, away)
    if not np.isfinite(
        differently[-1]
    ):  # hardly a run measured all of the objective: at most its parts' together
        differently[-1] = evidence.groups.value(differently[:-1])
    differently = np.sqrt(np.maximum(differently**2 - _of_noise(evidence), 0.0))
    apart = _disagreement(law, evidence, np.stack([natural, proposed]))
    unseen = _unseen(law, evidence, natural, proposed)
    shape = np.maximum(MISFIT_SHARE * differently, DEVIATIONS * apart)
    half = np.sqrt((DEVIATIONS * scale * error.std(0)) ** 2 + shape**2 + (DEVIATIONS * unseen) ** 2)
    if np.abs(proposed - natural).sum() < BINDING:
        half[:] = 0.0  # over itself a mixture gains nothing, whatever a law misses
    centre = judged[-1] + error.mean(0)
    bounds = np.stack([centre - half, centre + half], axis=1)
    return GainIntervals(bounds, float(-error[:, -1].mean()), scale * optima.std(0))


def _gain(
    law: Fitted, evidence: Evidence, natural: np.ndarray, mixtures: np.ndarray, stated: np.ndarray
) -> np.ndarray:
    """(n, C + 1) predicted gains of (n, m) mixtures over the natural distribution, the objective's last.

    A prediction outside what was measured counts as far as that is wide, or as far as (s, C) `stated` reach.
    """
    predicted = law.mean(np.concatenate([natural[None], mixtures]))
    nearest = np.clip(predicted, stated.min(0), stated.max(0))
    clipped = believable(predicted, evidence.table.ends)
    closer = np.abs(predicted - nearest) < np.abs(predicted - clipped)
    values = evidence.groups.with_value(np.where(closer, nearest, clipped))
    return values[:1] - values[1:]


def _disagreement(law: Fitted, evidence: Evidence, both: np.ndarray) -> np.ndarray:
    """(C + 1,) deviation of the gains between (2, m) mixtures by the members of a law, each counting by its share.

    In the objective a member counts by its share of all tasks, and where it has none of a task the law stands in.
    None is taken to be further from the law than what was measured reaches.
    """
    shares, means = law.by_member(both)
    mean = np.einsum("mt,mnt->nt", shares, means)
    reach = np.ptp(evidence.table.ends, axis=0)
    told = mean + np.where(shares[:, None] > 0, np.clip(means - mean, -reach, reach), 0.0)
    values, middle = evidence.groups.with_value(told), evidence.groups.with_value(mean)
    away = values[:, 0] - values[:, 1] - (middle[0] - middle[1])
    counts = np.concatenate([shares, shares @ evidence.groups.column_weights[:, None]], axis=1)
    return np.sqrt((counts * away**2).sum(0) / np.maximum(counts.sum(0), 1e-300))


def _unseen(law: Fitted, evidence: Evidence, natural: np.ndarray, proposed: np.ndarray) -> np.ndarray:
    """(C + 1,) deviation of the gains for domains that no run varied and the answer moves; see the module."""
    varied = weight_spread(evidence.weights) >= UNVARIED
    moved = np.flatnonzero(~varied & (np.abs(proposed - natural) > UNVARIED))
    squares = np.zeros(len(evidence.table.names) + 1)
    if not varied.any():
        return squares
    for by in (proposed - natural)[moved]:
        to = np.clip(natural + by, 0, 1)[varied]
        others = (1 - to)[:, None] * natural / (1 - natural[varied])[:, None]
        others[np.arange(len(to)), np.flatnonzero(varied)] = to
        effects = _gain(law, evidence, natural, others, law.mean(natural[None]))
        squares += np.square(effects).mean(axis=0)
    return np.sqrt(squares)


def _of_noise(evidence: Evidence) -> np.ndarray:
    """(C + 1,) the square of what `_difference` would be by the runs' noise alone; 0 where that is not known."""
    noise = np.zeros(len(evidence.table.names))
    noise[: len(evidence.tasks)] = np.nan_to_num(evidence.noise)
    together = np.nansum(np.square(evidence.objective * evidence.noise))
    return 2 * DEVIATIONS**2 * np.append(noise**2, together)


def _difference(missed: np.ndarray, away: np.ndarray) -> np.ndarray:
    """(C + 1,) the 90% quantile of how differently two runs are missed, of (R, J, C + 1) held-out errors.

    Of the runs that measured a task the third nearest by (J,) distance count; NaN where hardly a run did.
    """
    quantiles, known = np.full(missed.shape[2], np.nan), np.isfinite(missed[0])
    for columns in measured_alike(known):
        measured = np.flatnonzero(known[:, columns[0]])
        if len(measured) < FEWEST_JUDGED:
            continue
        nearest = measured[np.argsort(away[measured], kind="stable")]
        errors = missed[:, nearest[: max(_FEWEST_NEAR, len(measured) // 3)]][:, :, columns]
        own = np.ascontiguousarray(errors.transpose(0, 2, 1))
        quantiles[columns] = np.quantile(differences_of_pairs(own), CONFIDENCE, axis=1, overwrite_input=True)
    return quantiles


_OTHERS = 16


def differences_of_pairs(errors: np.ndarray) -> np.ndarray:
    """(c, P) mean differences over R of all pairs of n, of (R, c, n) errors.

    Of many each is paired with twice `_OTHERS` others, evenly from near to far in their order.
    """
    count = errors.shape[2]
    most = (count - 1) // 2
    steps = np.linspace(1, most, min(most, _OTHERS)).round().astype(int)
    pairs = [errors - np.roll(errors, -step, axis=2) for step in steps.tolist()]
    if most <= _OTHERS and count % 2 == 0:  # each with the one opposite, once
        pairs.append(errors[:, :, : count // 2] - errors[:, :, count // 2 :])
    return np.concatenate([np.abs(each).mean(axis=0) for each in pairs], axis=1)
