"""From a swarm's runs to a mixture that carries its evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixing.domains import Domains
from mixing.errors import InvalidSetting
from mixing.evidence import Evidence, RunEvidence, gather
from mixing.methods import method_named
from mixing.optimization.convex import Solution, solve
from mixing.optimization.problem import MixtureProblem, Objective
from mixing.regression.diagnostics import HeldOutError, cross_validate, weight_spread
from mixing.regression.log_linear import FittedLogLinear, LogLinearLaw
from mixing.repetition import epochs, repetition_caps
from mixing.simplex_map import SimplexMap
from mixing.uncertainty import CONFIDENCE, GainIntervals, gain_intervals
from mixing.warnings import Findings, warnings_of

_FOLDS, _RESAMPLES = 2, 3
"""Keys that keep the streams of the cross-validation and the resamples apart from the swarm's (1)."""


@dataclass(frozen=True)
class ProposalRequest:
    """What a mixture is asked for.

    Attributes:
        method: name of a method that trains runs.
        domains: m domains with their tokens.
        runs: the finished runs, in any order.
        objective: `{task: weight}`, normalised; lower metrics are better.
        target_tokens: R, the size of the training run the mixture is for.
        repetition_cap: k epochs, or None for no cap.
        kl_weight: lambda of the KL term to the natural distribution.
        seed: non-negative; the same request gives the same answer.
    """

    method: str
    domains: Domains
    runs: tuple[RunEvidence, ...]
    objective: Mapping[str, float]
    target_tokens: float
    repetition_cap: float | None
    kl_weight: float
    seed: int


@dataclass(frozen=True)
class Proposal:
    """The mixture and everything known about it; `to_dict` is its document."""

    request: ProposalRequest
    evidence: Evidence
    law: FittedLogLinear
    held_out: HeldOutError
    problem: MixtureProblem
    solution: Solution
    intervals: GainIntervals

    def to_dict(self) -> dict[str, Any]:
        """JSON: weights by name, the objective and every task, domains, constraints, effects, warnings."""
        tasks = self._tasks()
        counted = self.evidence.objective > 0
        return {
            "weights": self._by_domain(self.solution.weights),
            "natural": self._by_domain(self._natural),
            "objective": self._objective(),
            "tasks": tasks,
            "held_out_rank_correlation": float(self.held_out.rank_correlation[counted].mean()),
            "domains": self._domains(),
            "constraints": self._constraints(),
            "effects": self._effects(),
            "leverage": self._by_domain(weight_spread(self.evidence.weights)),
            "weight_spread": self._by_domain(self.intervals.weight_spread),
            "optimality_gap": self.solution.optimality_gap,
            "optimism": self.intervals.optimism,
            "nearest_run_distance": self._nearest_run_distance(),
            "runs_used": len(self.evidence.weights),
            "left_out": dict(self.evidence.left_out),
            "warnings": [warning.to_dict() for warning in warnings_of(self._findings())],
        }

    @property
    def _natural(self) -> np.ndarray:
        return self.problem.objective.prior

    def _by_domain(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.request.domains.names, map(float, values), strict=True))

    def _predicted(self) -> tuple[np.ndarray, np.ndarray]:
        """(T,) predictions at the natural distribution and at the proposed mixture."""
        mean, _ = self.law.predict(np.stack([self._natural, self.solution.weights]))
        return mean[0], mean[1]

    def _objective(self) -> dict[str, Any]:
        share = self.evidence.objective
        natural, proposed = (float(values @ share) for values in self._predicted())
        return {
            "natural": natural,
            "proposed": proposed,
            "gain": natural - proposed,
            "gain_interval": [float(end) for end in self.intervals.objective],
            "confidence": CONFIDENCE,
            "rank_correlation": self.held_out.objective_rank_correlation,
            "mae": self.held_out.objective_mae,
        }

    def _tasks(self) -> list[dict[str, Any]]:
        natural, proposed = self._predicted()
        noise = np.where(self.evidence.noise_known, np.median(self.evidence.noise, axis=0), np.nan)
        return [
            {
                "name": name,
                "weight": float(self.evidence.objective[t]),
                "natural": float(natural[t]),
                "proposed": float(proposed[t]),
                "gain": float(natural[t] - proposed[t]),
                "gain_interval": [float(end) for end in self.intervals.tasks[t]],
                "rank_correlation": float(self.held_out.rank_correlation[t]),
                "mae": float(self.held_out.mae[t]),
                "noise": float(noise[t]) if np.isfinite(noise[t]) else None,
            }
            for t, name in enumerate(self.evidence.tasks)
        ]

    def _domains(self) -> list[dict[str, Any]]:
        domains, target = self.request.domains, self.request.target_tokens
        read = epochs(domains, self.solution.weights, target)
        natural_read = epochs(domains, self._natural, target)
        binding = {item.name for item in self.solution.active if item.is_cap}
        return [
            {
                "name": name,
                "tokens": float(domains.tokens[j]),
                "weight": float(self.solution.weights[j]),
                "natural": float(self._natural[j]),
                "cap": float(self.problem.caps[j]) if self.problem.caps[j] < 1 else None,
                "epochs": float(read[j]),
                "natural_epochs": float(natural_read[j]),
                "binding": name in binding,
                "shadow_price": self._price_per_token(j),
            }
            for j, name in enumerate(domains.names)
        ]

    def _price_per_token(self, j: int) -> float:
        """BPB that one more token of a domain is worth: its cap is k N_j / R, so d cap / d N_j = k / R."""
        if self.request.repetition_cap is None:
            return 0.0
        return float(self.solution.cap_prices[j]) * self.request.repetition_cap / self.request.target_tokens

    def _constraints(self) -> list[dict[str, Any]]:
        tokens = dict(zip(self.request.domains.names, self.request.domains.tokens, strict=True))
        prices = {row["name"]: row["shadow_price"] for row in self._domains()}
        return [
            {
                "kind": "repetition_cap",
                "domain": item.name,
                "bound": item.bound,
                "shadow_price": prices[item.name],
                "statement": (
                    f"{item.name} is read {self.request.repetition_cap:g} times, its cap: "
                    f"{tokens[item.name]:,.0f} more tokens of it would be worth "
                    f"about {prices[item.name] * tokens[item.name]:.4f} BPB."
                ),
            }
            for item in self.solution.active
            if item.is_cap
        ]

    def _effects(self) -> dict[str, dict[str, float]]:
        """Per task, d f_t / d p_j at the answer, centred on the answer's own mean: moving weight towards j."""
        slopes = self.law.gradient(self.solution.weights[None])[0]
        centred = slopes - (slopes @ self.solution.weights)[:, None]
        return {name: self._by_domain(centred[t]) for t, name in enumerate(self.evidence.tasks)}

    def _nearest_run_distance(self) -> float:
        return float(np.abs(self.evidence.weights - self.solution.weights).sum(1).min())

    def _findings(self) -> Findings:
        return Findings(
            evidence=self.evidence,
            domains=self.request.domains.names,
            held_out=self.held_out,
            objective=self._objective(),
            proposed=self.solution.weights,
            nearest_run_distance=self._nearest_run_distance(),
            recommended_runs=method_named(self.request.method).default_runs(len(self.request.domains)),
        )


def propose(request: ProposalRequest) -> Proposal:
    """Fit, cross-validate, solve and say how sure the answer is.

    Raises:
        UnknownMethod, InvalidSetting: the method or a setting.
        TooFewRuns, InvalidMetrics, InvalidWeights, UnknownDomain, MissingDomain: the runs (`mixing.evidence.gather`).
        Infeasible: no mixture satisfies the constraints.
    """
    method = method_named(request.method)
    if not method.trains_runs:
        raise InvalidSetting(f"the method {method.name!r} fits no runs", field="method")
    domains = request.domains
    evidence = gather(domains, request.runs, request.objective, method.minimum_runs(len(domains)))
    law = LogLinearLaw()
    fitted = law.fit(evidence.weights, evidence.metrics, evidence.noise)
    natural = domains.natural().align(domains.names)
    problem = MixtureProblem(
        Objective(fitted.coefficients, evidence.objective, natural, request.kl_weight),
        SimplexMap.identity(domains.names),
        repetition_caps(domains, request.target_tokens, request.repetition_cap),
    )
    solution = solve(problem)
    held_out = cross_validate(
        law, evidence.weights, evidence.metrics, evidence.objective, _stream(request, _FOLDS), evidence.noise
    )
    intervals = gain_intervals(law, fitted, evidence, problem, solution.weights, _stream(request, _RESAMPLES))
    return Proposal(request, evidence, fitted, held_out, problem, solution, intervals)


def _stream(request: ProposalRequest, key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([request.seed, key])))
