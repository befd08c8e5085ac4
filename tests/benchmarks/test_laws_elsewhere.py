import numpy as np
import pytest

from benchmarks.laws_elsewhere import PLAIN, compare, default_family, families
from benchmarks.swarm_table import ACCURACIES, TASKS, SwarmTable
from mixing.domains import Domains
from mixing.parts import REGRESSIONS
from mixing.runs.table import RunTable


def test_a_cell_says_by_how_much_the_default_misses_the_best_family() -> None:
    """The truth is linear, with domains that hurt."""
    weights = np.random.default_rng(0).dirichlet(np.ones(4), 60)
    slopes = np.array([[1.0, -1.0, 0.5, 2.0], [0.0, 3.0, -2.0, 1.0]]).T
    table = RunTable.of(tuple("abcd"), ("x", "y"), weights, 5 + weights @ slopes)
    swarm = SwarmTable("linear", Domains.of(dict.fromkeys("abcd", 1.0)), table, (TASKS, ACCURACIES))
    result = compare([swarm], [34], [default_family(), *PLAIN])
    assert [cell["group"] for cell in result["cells"]] == [TASKS, ACCURACIES]
    for cell in result["cells"]:
        found = {name: values["rank_correlation"] for name, values in cell["families"].items()}
        assert found["linear"] == pytest.approx(1.0, abs=1e-3)
        assert cell["shortfall"] == pytest.approx(max(found.values()) - found[default_family()], abs=1e-4)
        assert cell["below"] == [name for name in PLAIN if found[name] > found[default_family()]]
    assert result["largest_shortfall"] == max(cell["shortfall"] for cell in result["cells"])


def test_a_family_is_left_out_only_with_a_reason() -> None:
    known, left_out = families()
    assert default_family() in known
    assert {*known, *left_out} == set(REGRESSIONS)
    assert all(left_out.values())
