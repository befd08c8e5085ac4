"""Objectives that tests state by weights and families."""

from collections.abc import Mapping
from dataclasses import replace

from mixing.objective import ObjectiveSpec, Task, objective_of


def objective_of_tasks(
    weights: Mapping[str, float],
    family_of: Mapping[str, str],
    *,
    worst_family: bool = False,
    per_family: bool = False,
) -> ObjectiveSpec:
    """The objective of a request with these tasks, its columns the tasks themselves."""
    tasks = [Task(name=name, weight=weight, family=family_of.get(name)) for name, weight in weights.items()]
    granularity = "per family" if per_family else "per task"
    spec = objective_of(tasks, [], granularity, worst_family=worst_family)
    return replace(spec, granularity="per task")
