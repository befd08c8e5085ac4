"""The document of a proposal: everything known about the mixture, by name, ready for JSON."""

from dataclasses import asdict
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from mixing.answer.coupling import couplings
from mixing.answer.metric_sense import Sense, sense_of
from mixing.answer.uncertainty import CONFIDENCE
from mixing.answer.untrained import domain_rows
from mixing.answer.warnings import Findings, warnings_of
from mixing.laws.conformal import RunIntervals, fewest_runs
from mixing.laws.diagnostics import effects, weight_spread
from mixing.limits import BINDING
from mixing.methods import method_named
from mixing.runs.noise import TaskSignal, rank_tasks
from mixing.solve.constraints import LinearConstraint
from mixing.solve.solution import Kind

if TYPE_CHECKING:
    from mixing.answer.proposal import Proposal

Document = dict[str, Any]
_UNCHANGED = 1e-9
"""A prediction this much worse is the same one, rounded."""
_COUPLED = 50
"""Domains a domain's couplings are listed for."""


def document_of(proposal: "Proposal") -> Document:
    """Weights by name, the objective and every task, domains, constraints, effects, warnings."""
    return _Report(proposal).document()


class _Report:
    """The parts of a document, each made once from one proposal."""

    def __init__(self, proposal: "Proposal") -> None:
        self.proposal = proposal
        self.question = proposal.question
        self.evidence = proposal.evidence
        self.groups = proposal.evidence.groups
        self.weights = proposal.solution.weights
        self.natural = self.question.domains.natural_weights
        both = np.stack([self.natural, self.weights])
        self.at_natural, self.at_proposed = proposal.law.predict(both)[0]
        spec = self.question.specification
        self.senses = {task: sense_of(spec, [task]) for task in self.evidence.tasks}
        self.sense = sense_of(spec, np.array(self.evidence.tasks)[self.evidence.objective > 0])

    def document(self) -> Document:
        """The whole of it."""
        proposal, recipe = self.proposal, self.question.parts
        counted = np.flatnonzero(self.evidence.objective > 0)
        held_out, intervals = proposal.held_out, proposal.intervals
        objective = self.objective()
        return {
            "weights": self.by_domain(self.weights),
            "natural": self.by_domain(self.natural),
            "method": self.question.method,
            "recipe": {
                "sampler": recipe.sampler,
                "regression": recipe.regression,
                "granularity": recipe.granularity,
                "solver": recipe.solver,
            },
            "objective": objective,
            "tasks": self.tasks(),
            "worse": self.worse(),
            "held_out_rank_correlation": (
                None if held_out is None else float(held_out.rank_correlation[counted].mean())
            ),
            "domains": self.domains(),
            "constraints": [*self.caps(), *self.shares(), *self.guard_rails()],
            "effects": self.effects(),
            "coupling": self.coupling(),
            "reuse": self.reuse(),
            "leverage": self.by_domain(weight_spread(self.evidence.weights)),
            "weight_spread": None if intervals is None else self.by_domain(intervals.weight_spread),
            "optimality_gap": proposal.solution.gap if isfinite(proposal.solution.gap) else None,
            "evaluations": proposal.solution.evaluations,
            "optimism": None if intervals is None else intervals.optimism,
            "nearest_run_distance": self.nearest_run_distance,
            "runs_used": len(self.evidence.weights),
            "left_out": dict(self.evidence.left_out),
            "notes": list(self.evidence.notes),
            "warnings": [warning.to_dict() for warning in warnings_of(self.findings(objective))],
        }

    def by_domain(self, values: np.ndarray) -> dict[str, float]:
        """(m,) values by name."""
        return dict(zip(self.question.domains.names, map(float, values), strict=True))

    def objective(self) -> Document:
        """What is predicted of the objective."""
        natural, proposed = (float(self.groups.value(at)) for at in (self.at_natural, self.at_proposed))
        held_out, intervals = self.proposal.held_out, self.proposal.intervals
        return {
            "aggregate": "worst_family" if self.groups.worst else "mean",
            "families": self.families(),
            **self.sense.pair(natural, proposed),
            "natural_interval": self.natural_interval(-1, self.sense),
            "gain": natural - proposed,
            "gain_interval": None if intervals is None else [float(end) for end in intervals.objective],
            "confidence": CONFIDENCE,
            "rank_correlation": None if held_out is None else held_out.objective_rank_correlation,
            "mae": None if held_out is None else held_out.objective_mae,
            "decision_accuracy": None if held_out is None else held_out.objective_decision_accuracy,
        }

    def natural_interval(self, column: int, sense: Sense) -> list[float] | None:
        """Where one more proxy run of the natural distribution is expected; -1 is the objective's column.

        Of the proposed mixture there is none: it was chosen by these very runs, and on simulated swarms an interval
        of their residuals held a new run of it 3 to 5 times in 10 (`gain_interval` allows for the choice).
        """
        ends = self._expected
        return None if ends is None else sense.interval(ends[0, column], ends[1, column])

    @cached_property
    def _expected(self) -> np.ndarray | None:
        """(2, C + 1) lower and upper ends; None with too few runs."""
        refits = self.proposal.learned.refits
        if refits is None or len(refits.measured) < fewest_runs(CONFIDENCE):
            return None
        widened = self.groups.with_value
        intervals = RunIntervals.of(widened(refits.predicted), widened(refits.measured), CONFIDENCE)
        return np.concatenate(intervals.around(widened(self.at_natural)[None]))

    def families(self) -> list[Document]:
        """The means of which the worst is minimised, by their tasks; none where all tasks count together."""
        if not self.groups.worst:
            return []
        evidence, spec = self.evidence, self.question.specification
        groups, tasks = self.groups, evidence.tasks
        shares = groups.membership @ groups.matrix
        means = zip(
            self.groups.membership @ self.at_natural, self.groups.membership @ self.at_proposed, strict=True
        )
        return [
            {
                "name": name,
                "tasks": {task: float(share) for task, share in zip(tasks, row, strict=True) if share > 0},
                **sense_of(spec, np.array(tasks)[row > 0]).pair(float(natural), float(proposed)),
                "gain": float(natural - proposed),
            }
            for name, row, (natural, proposed) in zip(groups.families, shares, means, strict=True)
        ]

    def tasks(self) -> list[Document]:
        """What is predicted of each task."""
        evidence, held_out, intervals = self.evidence, self.proposal.held_out, self.proposal.intervals
        return [
            {
                "name": name,
                "weight": float(evidence.objective[t]),
                **self.senses[name].pair(float(self.at_natural[t]), float(self.at_proposed[t])),
                "natural_interval": self.natural_interval(t, self.senses[name]),
                "gain": float(self.at_natural[t] - self.at_proposed[t]),
                "gain_interval": None if intervals is None else [float(end) for end in intervals.columns[t]],
                "rank_correlation": None if held_out is None else float(held_out.rank_correlation[t]),
                "mae": None if held_out is None else float(held_out.mae[t]),
                "decision_accuracy": None if held_out is None else float(held_out.decision_accuracy[t]),
                "noise": float(evidence.noise[t]) if np.isfinite(evidence.noise[t]) else None,
                "signal_to_noise": self.signal_to_noise(t),
            }
            for t, name in enumerate(evidence.tasks)
        ]

    def worse(self) -> list[Document]:
        """The tasks predicted worse than by the natural distribution, the worst first, each in its own unit.

        `change` is by how much, above 0, and `interval` that of the change; `is_certain` says whether it excludes 0,
        and both are None where nothing is held out.
        """
        found = []
        for row in self.tasks():
            if row["gain"] >= -_UNCHANGED:
                continue
            bounds = row["gain_interval"]
            found.append(
                {
                    "task": row["name"],
                    "weight": row["weight"],
                    "change": -row["gain"],
                    "interval": None if bounds is None else [-bounds[1], -bounds[0]],
                    "is_certain": None if bounds is None else bounds[1] < 0,
                }
            )
        return sorted(found, key=lambda row: (-row["change"], row["task"]))

    def signal_to_noise(self, t: int) -> float | None:
        """Range of a task over the runs in units of its noise, where that is known and not 0."""
        found = self.signals.get(self.evidence.tasks[t])
        return None if found is None or not np.isfinite(found.ratio) else found.ratio

    @cached_property
    def signals(self) -> dict[str, TaskSignal]:
        """By task, what tells runs apart, of the tasks whose noise is known."""
        evidence = self.evidence
        known = [
            t
            for t in range(len(evidence.tasks))
            if np.isfinite(evidence.noise[t]) and evidence.metrics[:, t].mean() > 0
        ]
        if not known:
            return {}
        tasks = [evidence.tasks[t] for t in known]
        ranked = rank_tasks(tasks, evidence.metrics[:, known], evidence.noise[known])
        return {row.task: row for row in ranked}

    def domains(self) -> list[Document]:
        """What the mixture does with each domain."""
        prices = self.proposal.solution.cap_prices
        rows = domain_rows(self.question.limits, self.weights)
        for j, row in enumerate(rows):
            row["shadow_price"] = None if prices is None else self._price_per_token(float(prices[j]))
        return rows

    def _price_per_token(self, price: float) -> float:
        """What one more token of a domain is worth: its cap is k N_j / R, so d cap / d N_j = k / R."""
        if self.question.repetition_cap is None:
            return 0.0
        return price * self.question.repetition_cap / self.question.target_tokens

    def caps(self) -> list[Document]:
        """The repetition caps that bind."""
        found = []
        for row in self.domains():
            if not row["binding"]:
                continue
            worth = ""
            if row["shadow_price"] is not None:
                worth = (
                    f": {row['tokens']:,.0f} more tokens of it would be worth about "
                    f"{row['shadow_price'] * row['tokens']:.4f}{self.sense.suffix}"
                )
            found.append(
                {
                    "kind": "repetition_cap",
                    "domain": row["name"],
                    "bound": row["cap"],
                    "shadow_price": row["shadow_price"],
                    "statement": f"{row['name']} is read {self.question.repetition_cap:g} times, its cap{worth}.",
                }
            )
        return found

    def shares(self) -> list[Document]:
        """The shares at one of their bounds."""
        prices = self._prices("constraint", "pin")
        found = []
        for constraint in self.question.constraints:
            weight = float(constraint.row(self.question.domains.names) @ self.weights)
            if (bound := _bound_reached(constraint, weight)) is None:
                continue
            price = prices.get(constraint.name)
            worth = (
                ""
                if price is None
                else f"; a hundredth more room would be worth about {price / 100:.4f}{self.sense.suffix}"
            )
            found.append(
                {
                    "kind": "share",
                    "name": constraint.name,
                    "bound": bound,
                    "shadow_price": price,
                    "statement": f"{constraint.name} weighs {weight:.4f}, where it is held{worth}.",
                }
            )
        return found

    def guard_rails(self) -> list[Document]:
        """The guard rails that hold the mixture back."""
        prices = self._prices("guard_rail")
        found = []
        for guard, rail in zip(self.question.guard_rails, self.proposal.problem.guard_rails, strict=True):
            predicted = float(rail.mean.weights @ self.at_proposed)
            if predicted < rail.bound - BINDING * max(abs(rail.bound), 1.0):
                continue
            price, sense = prices.get(rail.mean.name), self.senses[guard.task]
            found.append(
                {
                    "kind": "guard_rail",
                    "task": guard.task,
                    "bound": sense.told(rail.bound),
                    "shadow_price": price,
                    "statement": f"{guard.task} is predicted at {sense.told(predicted):.4f}{sense.suffix}, its"
                    " guard rail.",
                }
            )
        return found

    def _prices(self, *kinds: Kind) -> dict[str, float]:
        return {item.name: item.price for item in self.proposal.solution.active if item.kind in kinds}

    def effects(self) -> dict[str, dict[str, float]]:
        """Per task, the change per unit of weight given to a domain and taken from all in proportion."""
        found = effects(self.proposal.law, self.weights)
        return {
            name: self.by_domain(self.senses[name].slope(found[:, t]))
            for t, name in enumerate(self.evidence.tasks)
        }

    def coupling(self) -> dict[str, dict[str, float]] | None:
        """`{domain: {domain: BPB}}`: what keeping the second's ratio costs when the first's whole weight changes.

        Of each domain the `_COUPLED` strongest.
        """
        found = couplings(self.proposal.problem, self.weights)
        if found is None:
            return None
        names = self.question.domains.names
        strongest = np.argsort(-found, axis=1, kind="stable")[:, :_COUPLED]
        return {
            name: {names[k]: float(row[k]) for k in sorted(best) if row[k] > 0}
            for name, row, best in zip(names, found, strongest.tolist(), strict=True)
        }

    def reuse(self) -> Document | None:
        """The ratios that were kept and the runs of older revisions that counted; None where nothing was reused."""
        reuse, learned = self.question.reuse, self.proposal.learned
        if not reuse.groups and not reuse.runs:
            return None
        virtual = self.question.space
        searched = virtual.collapse(self.weights)
        space = reuse.evidence_space(self.question.domains)
        return {
            "virtual_domains": {
                name: {"weight": float(weight), "ratios": dict(reuse.groups[name])}
                for name, weight in zip(virtual.free, searched, strict=True)
                if name in reuse.groups
            },
            "older_runs": int(self.evidence.table.older.sum()),
            "new_runs": int((~self.evidence.table.older).sum()),
            "contents": len(space.contents),
            "fitted_over": learned.where,
            "candidates": [asdict(candidate) for candidate in learned.candidates],
            "not_compared": learned.not_compared,
            "older_run_ids": sorted(run.id for run in reuse.runs if run.older),
        }

    @property
    def nearest_run_distance(self) -> float:
        """L1 distance of the mixture to the nearest run; at most so far to one with text that is no longer there."""
        return float((np.abs(self.evidence.weights - self.weights).sum(1) + self.evidence.table.off).min())

    def findings(self, objective: Document) -> Findings:
        """What the warnings are drawn from."""
        question = self.question
        return Findings(
            evidence=self.evidence,
            signals=self.signals,
            domains=question.domains.names,
            pinned=frozenset(
                name
                for one in question.constraints
                if one.lower == one.upper and len(one.coefficients) == 1
                for name in one.coefficients
            ),
            objective=objective,
            proposed=self.weights,
            nearest_run_distance=self.nearest_run_distance,
            recommended_runs=method_named(question.method).default_runs(
                len(question.space.free), question.parts
            ),
        )


def _bound_reached(constraint: LinearConstraint, weight: float) -> float | None:
    for bound in (constraint.lower, constraint.upper):
        if np.isfinite(bound) and abs(weight - bound) <= BINDING * max(abs(bound), BINDING):
            return float(bound)
    return None
