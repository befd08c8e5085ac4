"""A full run is followed through its directory while it writes, is killed, and goes on."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_models.training.run_files import METRICS, PROGRESS, Followed, add_lines


def test_each_look_answers_what_is_new(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    assert (followed.progress(), followed.metrics()) == (None, [])
    (tmp_path / PROGRESS).write_text('{"done": 1}')
    add_lines(tmp_path / METRICS, [{"step": 1}, {"step": 2}])
    assert (followed.progress(), followed.metrics()) == ({"done": 1}, [{"step": 1}, {"step": 2}])
    assert (followed.progress(), followed.metrics()) == (None, [])
    add_lines(tmp_path / METRICS, [{"step": 3}])
    assert followed.metrics() == [{"step": 3}]


@given(cut=st.integers(min_value=1, max_value=40))
def test_a_writer_that_was_killed_within_a_line_costs_that_line_alone(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "not-there-yet" / METRICS
    followed = Followed(path.parent)
    lines = [{"step": step, "task": "training/loss", "value": 1.5} for step in range(3)]
    add_lines(path, lines[:2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    first = followed.metrics()
    add_lines(path, lines[2:])
    seen = first + followed.metrics()
    kept = [json.loads(line) for line in whole[:-cut].split(b"\n")[:-1]]
    assert seen[: len(kept)] == kept
    assert seen[-1] == lines[2]
    assert len(seen) <= len(lines)
