"""A question as JSON and back: every field, to the bit, and a document from before a field was there."""

import json
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixing
from mixing.domains import Domains
from mixing.methods import METHODS, combine
from mixing.objective import ObjectiveSpec
from mixing.pools import POOLS
from mixing.question import Question
from mixing.reuse.reuse import Reuse, older_run
from mixing.solve.constraints import share_of
from mixing.terms import Target, TaskGuard
from tests.mixing.reuse_world import TASKS, runs_of_first, second, updated_space

positive = st.floats(1e-6, 1e12)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Nothing in it is as it would be if it were left out."""
    space = updated_space(*second("added"))
    domains = Domains(space.newest.free, space.contents.tokens @ (space.newest.matrix > 0))
    older = tuple(older_run(run, "1", space, seed=1) for run in runs_of_first(space, 3))
    low, high = sorted((draw(st.floats(0.01, 10)), draw(st.floats(10.5, 20))))
    return Question(
        method="olmix",
        recipe=combine(METHODS["olmix"], sampler=draw(st.sampled_from(["maximin", "tempered-dirichlet"]))),
        target_tokens=draw(positive),
        repetition_cap=draw(st.none() | st.floats(5, 1e3)),
        guard_rails=(TaskGuard("t0", at_most=draw(positive)), TaskGuard("t1", worse_than_natural=0.0)),
        seed=draw(st.integers(1, 2**31)),
        rounds=tuple(draw(st.lists(st.integers(1, 1000), min_size=1, max_size=4))),
        kl_weight=draw(positive),
        kl_unit="metric",
        repetition_price=draw(positive),
        strengths=(low, high),
        temperature=draw(st.floats(0, 1)),
        target=Target(draw(st.floats(1e13, 1e15)), draw(st.floats(1e13, 1e15))),
        domains=domains,
        constraints=(share_of([domains.names[0]], domains.names, maximum=draw(st.floats(0, 1))),),
        objective=ObjectiveSpec(dict.fromkeys(TASKS, 1.0), {"f": TASKS[:2]}, {"f": draw(positive)}),
        proxy_tokens=draw(positive),
        proxy_parameters=draw(positive),
        reuse=Reuse({"kept": {"d0": 0.25, "d1": 0.75}}, space, older),
    )


@given(questions())
def test_every_field_survives_the_way_through_json(question: Question) -> None:
    document = json.loads(json.dumps(question.to_dict(), allow_nan=False))
    again = Question.from_dict(document)
    assert again.to_dict() == question.to_dict()
    for field in fields(Question):
        value = getattr(question, field.name)
        if field.default is not MISSING and value is not None:
            assert value != field.default, (
                f"{field.name} is not covered: give it another value than its default"
            )
        assert type(getattr(again, field.name)) is type(value), field.name
    assert again.parts == question.parts
    assert again.constraints == question.constraints
    np.testing.assert_array_equal(again.limits.caps, question.limits.caps)
    np.testing.assert_array_equal(again.space.matrix, question.space.matrix)
    assert question.reuse.space is not None
    assert again.reuse.space is not None
    for revision, way in question.reuse.space.maps.items():
        np.testing.assert_array_equal(again.reuse.space.maps[revision].matrix, way.matrix)


def test_what_a_document_does_not_say_has_its_default_and_what_nobody_knows_is_passed_over() -> None:
    question = Question(domains=Domains.of({"a": 1.0, "b": 2.0}), target_tokens=2.0)
    document = {
        name: value for name, value in question.to_dict().items() if name in ("domains", "target_tokens")
    }
    again = Question.from_dict({**document, "of a later version": 1})
    # Before lambda had a unit it was in the metric's own.
    assert again.kl_unit == "metric"
    assert replace(again, kl_unit="spread").to_dict() == question.to_dict()
    with pytest.raises(KeyError, match="target_tokens"):
        Question.from_dict({"domains": document["domains"]})


def declared(value: Any, document: Any) -> None:
    """Every name a file of data has is a field, and says what the value has there."""
    if is_dataclass(value):
        assert document.keys() <= {field.name for field in fields(value)}
        for name, member in document.items():
            declared(getattr(value, name), member)
    elif isinstance(value, tuple):
        assert len(value) == len(document)
        for each, member in zip(value, document, strict=True):
            declared(each, member)
    else:
        assert value == document


@pytest.mark.parametrize(("file", "values"), [("methods", (*METHODS.values(),)), ("pools", POOLS)])
def test_a_file_of_data_says_nothing_that_is_not_read(file: str, values: tuple[Any, ...]) -> None:
    declared(values, json.loads((Path(mixing.__path__[0]) / f"{file}.json").read_text()))
