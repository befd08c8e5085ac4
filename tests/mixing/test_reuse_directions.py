import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixing.reuse.plan import unknown_directions


@given(st.integers(0, 2**32 - 1))
def test_directions_are_what_the_rank_of_all_mixtures_grows_by(seed: int) -> None:
    """Against the rank of a matrix, where there are runs enough to tell every direction they moved in."""
    generator = np.random.default_rng(seed)
    varied, together, never = generator.integers(1, 4, 3)
    ratios = generator.dirichlet(np.full(together, 5.0))
    drawn = generator.dirichlet(np.ones(varied + 1), 30)
    points = np.hstack([drawn[:, :varied], drawn[:, varied:] * ratios, np.zeros((30, never))])
    searched = np.eye(points.shape[1])
    grown = np.linalg.matrix_rank(np.vstack([points, searched])) - np.linalg.matrix_rank(points)
    assert unknown_directions(searched, points, np.ones(len(ratios) + varied + never)) == grown
    # The parts held to the ratio all runs had are no new direction.
    whole = np.concatenate([np.zeros(varied), ratios, np.zeros(never)])
    kept = np.vstack([searched[:varied], whole, searched[varied + together :]])
    assert unknown_directions(kept, points, np.ones(points.shape[1])) == never


def test_a_domain_that_may_be_a_trace_only_has_moved_when_it_moved_so_little() -> None:
    generator = np.random.default_rng(0)
    trace = generator.uniform(0, 1e-5, (20, 1))
    rest = generator.dirichlet(np.ones(2), 20) * (1 - trace)
    points = np.hstack([rest, trace])
    assert unknown_directions(np.eye(3), points, np.array([1.0, 1.0, 1e-5])) == 0
    assert unknown_directions(np.eye(3), points, np.ones(3)) == 1


def test_without_runs_everything_but_the_sum_is_unknown() -> None:
    assert unknown_directions(np.eye(4), np.zeros((0, 4)), np.ones(4)) == 3
