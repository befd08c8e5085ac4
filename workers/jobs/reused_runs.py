"""What an optimization goes on from: the ratios its plan keeps, and the runs of older revisions that count."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from store.revisions.lineage import ancestry, lineage_nodes, node_id, nodes_document, nodes_of
from store.revisions.past_runs import Comparison, Conditions, FinishedRun, finished_runs
from store.tables import Optimization
from workers.claims.failures import JobError
from workers.jobs.accuracies import for_laws

if TYPE_CHECKING:
    from mixing.reuse.reuse import Reuse

Document = dict[str, Any]


def describe_reuse(session: Session, optimization: Optimization) -> Document | None:
    """The plan's groups and, where older runs count, the lineage and these runs; None where nothing is reused.

    Raises JobError when a run that the plan counts is not there any more.
    """
    settings = optimization.settings.get("reuse")
    if settings is None:
        return None
    plan, wanted = settings["plan"], set(settings["runs"])
    found: Document = {
        "groups": plan["groups"],
        "new_runs": plan["new_runs"],
        "recomputed": plan["recomputed"],
        "revision": node_id(optimization.revision),
        "lineage": [],
        "runs": [],
    }
    if not wanted:
        return found
    nodes = lineage_nodes(session, optimization.revision)
    conditions = Conditions(
        optimization.revision.tokenizer_path, optimization.settings["proxy"], optimization.settings["tasks"]
    )
    comparison = Comparison(nodes, conditions)
    runs = finished_runs(session, ancestry(session, optimization.revision))
    counted = [one for one in runs if one.run.id in wanted]
    if missing := sorted(wanted - {one.run.id for one in counted}):
        raise JobError("data_missing", f"of the older runs {', '.join(missing[:3])} are not there any more")
    found["lineage"] = nodes_document(nodes)
    found["runs"] = [_run(one, comparison) for one in counted]
    return found


def _run(finished: FinishedRun, comparison: Comparison) -> Document:
    return {
        "id": finished.run.id,
        "revision": node_id(finished.optimization.revision),
        "mixture": finished.run.weights,
        "metrics": comparison.carried(finished, "final"),
        "noise": comparison.carried(finished, "noise"),
        "seed": finished.run.seed,
    }


def reuse_of(spec: Mapping[str, Any]) -> "Reuse":
    """What ``describe_reuse`` wrote, as the mathematics reads it."""
    from mixing.change.lineage import Lineage
    from mixing.reuse.reuse import NOTHING_REUSED, Reuse, older_run
    from mixing.runs.evidence import RunEvidence

    described = spec["reuse"]
    if described is None:
        return NOTHING_REUSED
    if not described["runs"]:
        return Reuse(described["groups"])
    space = Lineage.of(nodes_of(described["lineage"])).space(described["revision"])
    runs = tuple(
        older_run(
            RunEvidence(
                id=run["id"],
                mixture=run["mixture"],
                metrics=for_laws(run["metrics"], spec["tasks"]),
                noise=run["noise"],
                seed=run["seed"],
            ),
            run["revision"],
            space,
            spec["seed"],
        )
        for run in described["runs"]
    )
    return Reuse(described["groups"], space, runs)


def kept_ratios(spec: Mapping[str, Any]) -> Mapping[str, float] | None:
    """The one group of ratios where nothing else is left to find: there is nothing to fit. None otherwise."""
    described = spec["reuse"]
    if described is None or described["recomputed"] or described["new_runs"] or len(described["groups"]) != 1:
        return None
    (ratios,) = described["groups"].values()
    return ratios
