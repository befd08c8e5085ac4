"""What other repetition caps would give, and for which of them the runs speak.

The law knows what repeating text costs only as far as the runs it was learned from repeated: of T_i tokens run i read
domain j w_ij T_i / N_j times, with N_j of different text as in `mixing.limits`. A mixture under a cap is supported
where each domain that it reads more than once was read about as often by some run. In mixtures scarce text bore 15 to
20 repetitions where they were in the evidence (arXiv 2605.12715); where they are not, a law takes them for new text.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixing.errors import Infeasible
from mixing.limits import BINDING
from mixing.parts import SOLVERS
from mixing.question import problem_of
from mixing.solve.exact import solve

if TYPE_CHECKING:
    from mixing.answer.proposal import Proposal

Document = dict[str, Any]
CAPS = (4.0, 8.0, 16.0)
"""Epochs, beside the cap that was asked for and none."""
ABOUT = 0.9
"""Share of its epochs that a run must have read of a domain to have read it about as often."""


def caps_read(proposal: "Proposal") -> list[Document] | None:
    """A row for each cap, the lowest first and none last, of the best mixture as predicted under it.

    `gain` is a proxy's over the natural distribution; `epochs` are of the domain read most, and `run_epochs` the most
    that a run read of it; `beyond` are the domains repeated more often than by any run. All of it is None where no
    mixture keeps to the cap, and what speaks of runs where nobody said what they train.

    Returns:
        None where no cap was asked for, and where mixtures are searched for: five searches would be dear.
    """
    question = proposal.question
    is_exact = SOLVERS[question.parts.solver].for_convex and proposal.learned.law.is_convex
    if question.repetition_cap is None or not is_exact:
        return None
    return [_row(proposal, cap) for cap in (*sorted({*CAPS, question.repetition_cap}), None)]


def _row(proposal: "Proposal", cap: float | None) -> Document:
    question, learned = proposal.question, proposal.learned
    row: Document = {"repetition_cap": cap, "is_own": cap == question.repetition_cap}
    if (weights := _best(proposal, cap)) is None:
        return {**row, **dict.fromkeys(("gain", "epochs", "most_read", "run_epochs", "beyond", "supported"))}
    both = np.stack([question.domains.natural_weights, weights])
    natural, best = learned.evidence.groups.value(learned.law.mean(both)).tolist()
    epochs, by_runs = question.limits.epochs(weights), _epochs_of_runs(proposal)
    most, names = int(epochs.argmax()), np.array(question.domains.names)
    repeated = epochs > 1 + BINDING
    beyond = names[repeated & (by_runs < ABOUT * epochs)].tolist()
    is_known = bool(np.isfinite(by_runs).all() or not repeated.any())
    return {
        **row,
        "gain": natural - best,
        "epochs": float(epochs[most]),
        "most_read": names[most].item(),
        "run_epochs": float(by_runs[most]) if np.isfinite(by_runs[most]) else None,
        "beyond": beyond if is_known else None,
        "supported": not beyond if is_known else None,
    }


def _best(proposal: "Proposal", cap: float | None) -> np.ndarray | None:
    """(m,) the best as predicted under a cap, before any preference; None where no mixture keeps to it."""
    if cap == proposal.question.repetition_cap:
        decision = proposal.decision
        return proposal.solution.weights if decision is None else decision.best
    asked, learned = replace(proposal.question, repetition_cap=cap), proposal.learned
    if not asked.limits.is_feasible(asked.space):
        return None
    factors = 1.0 if proposal.transfer is None else proposal.transfer.factors
    try:
        return solve(problem_of(asked, learned.evidence, learned.law, factors)).weights
    except Infeasible:  # a guard rail can be kept under other caps only
        return None


def _epochs_of_runs(proposal: "Proposal") -> np.ndarray:
    """(m,) the most that any run read each domain; NaN where nobody said what a run trains."""
    question, table = proposal.question, proposal.learned.evidence.table
    tokens = (question.proxy_tokens or np.nan) * (table.tokens[:, None] * table.weights).max(axis=0)
    return tokens / question.domains.unique_tokens
