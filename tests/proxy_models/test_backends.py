"""However members are trained together, each gets the numbers of training it apart."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from proxy_models.backends import (
    COMPILED,
    GRAPH,
    ONE_BY_ONE,
    STACKED,
    STACKED_COMPILED,
    Backend,
    Stacked,
    available,
    build,
    compiler_problem,
)
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.evaluation import held_out_task
from proxy_models.model.model import Decoder
from proxy_models.model.stacked_model import stacked_loss_and_gradients, together
from proxy_models.text.token_shard import HeldOutDocument
from proxy_models.training.stacked_optimizer import AdamW, StackedAdamW

MODEL = ModelConfig("small", 2, 32, 2, 48, 1e-2, vocabulary_size=64)
TRAINING = TrainingConfig(tokens=50 * 4 * 16, sequence_length=16, batch_rows=4, clip=0.5)
TRAININGS = [replace(TRAINING, seed=seed) for seed in range(4)]
RATES = (2e-3, 1e-3, 5e-4, 3e-3)
STEPS = 50

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NO CUDA DEVICE: the captured graph was not run"
)


def batches(step: int, members: Sequence[int] = range(4)) -> np.ndarray:
    """A Markov chain of the member's own: text that can be learned, so that training is no chaos."""
    drawn = [
        np.random.default_rng([step, member]).integers(0, 3, (TRAINING.batch_rows, 17)) for member in members
    ]
    return np.stack(
        [(np.cumsum(rows + member, axis=1) * 5) % 64 for member, rows in zip(members, drawn, strict=True)]
    )


def train(backend: Backend, steps: range = range(STEPS), members: Sequence[int] = range(4)) -> np.ndarray:
    """Losses and norms, (steps, 2, N)."""
    rates = [RATES[member] for member in members]
    found = [backend.learn(batches(step, members), rates) for step in steps]
    return np.array([(one.losses, one.norms) for one in found])


def largest_difference(one: Backend, other: Backend, members: Sequence[tuple[int, int]]) -> float:
    return max(
        float((value - other.parameters(theirs)[name]).abs().max())
        for mine, theirs in members
        for name, value in one.parameters(mine).items()
    )


def same_members(one: Backend, other: Backend) -> float:
    return largest_difference(one, other, [(member, member) for member in range(one.members)])


def test_stacked_equals_separate_training_in_float64() -> None:
    apart = build(ONE_BY_ONE, MODEL, TRAININGS, dtype=torch.float64)
    together_ = build(STACKED, MODEL, TRAININGS, dtype=torch.float64)
    expected, found = train(apart), train(together_)
    assert (expected[:, 1] > TRAINING.clip).mean() > 0.5  # clipping was active
    assert (expected[-1, 0] < expected[0, 0] - 0.5).all()  # and something was learned
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert same_members(apart, together_) < 1e-13


def test_stacked_equals_separate_training_in_float32() -> None:
    apart, together_ = build(ONE_BY_ONE, MODEL, TRAININGS), build(STACKED, MODEL, TRAININGS)
    expected, found = train(apart), train(together_)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)
    assert same_members(apart, together_) < 5e-6


def test_a_member_does_not_depend_on_its_companions() -> None:
    all_ = build(STACKED, MODEL, TRAININGS)
    train(all_)
    for members in ([2], [3, 0], [1, 2, 0]):
        some = build(STACKED, MODEL, [TRAININGS[member] for member in members])
        train(some, members=members)
        assert largest_difference(some, all_, list(enumerate(members))) == 0


@pytest.mark.skipif(compiler_problem() is not None, reason=f"nothing can be compiled: {compiler_problem()}")
@pytest.mark.parametrize("name", [pytest.param(COMPILED, marks=pytest.mark.long), STACKED_COMPILED])
def test_compiled_bodies_give_the_same_numbers(name: str) -> None:
    apart, compiled = build(ONE_BY_ONE, MODEL, TRAININGS), build(name, MODEL, TRAININGS)
    assert name in available("cpu")
    np.testing.assert_allclose(train(compiled), train(apart), rtol=0, atol=2e-5)
    assert same_members(apart, compiled) < 2e-5


@needs_cuda
def test_a_captured_graph_gives_the_same_numbers() -> None:
    apart = build(ONE_BY_ONE, MODEL, TRAININGS, "cuda", torch.float64)
    graphed = build(GRAPH, MODEL, TRAININGS, "cuda", torch.float64)
    np.testing.assert_allclose(train(graphed), train(apart), rtol=0, atol=1e-10)
    assert same_members(apart, graphed) < 1e-10


def test_a_graph_is_refused_without_cuda() -> None:
    with pytest.raises(InvalidSpec, match="cannot be captured on cpu"):
        build(GRAPH, MODEL, TRAININGS, "cpu")
    with pytest.raises(InvalidSpec, match=r"unknown backend 'magic'.*stacked"):
        build("magic", MODEL, TRAININGS)


@pytest.mark.parametrize("name", [ONE_BY_ONE, STACKED])
def test_a_member_that_diverges_stands_still_alone(name: str) -> None:
    undisturbed, disturbed = build(name, MODEL, TRAININGS), build(name, MODEL, TRAININGS)
    train(undisturbed, range(12))
    train(disturbed, range(6))
    disturbed.parameters(1)["final_norm"].fill_(float("nan"))
    learned = disturbed.learn(batches(6), RATES)
    assert [learned.diverged(member) for member in range(4)] == [False, True, False, False]
    train(disturbed, range(7, 12))
    assert largest_difference(disturbed, undisturbed, [(0, 0), (2, 2), (3, 3)]) == 0


@pytest.mark.parametrize("name", [ONE_BY_ONE, STACKED])
def test_a_dropped_member_is_trained_no_further_and_the_others_do_not_notice(name: str) -> None:
    undisturbed, disturbed = build(name, MODEL, TRAININGS), build(name, MODEL, TRAININGS)
    train(undisturbed, range(6))
    train(disturbed, range(6))
    before = {key: value.clone() for key, value in disturbed.parameters(2).items()}
    disturbed.drop(2)
    assert np.isnan(train(disturbed, range(6, 12))[:, :, 2]).all()
    train(undisturbed, range(6, 12))
    assert all(torch.equal(before[key], value) for key, value in disturbed.parameters(2).items())
    assert largest_difference(disturbed, undisturbed, [(0, 0), (1, 1), (3, 3)]) == 0


@pytest.mark.parametrize("first", [ONE_BY_ONE, STACKED])
@pytest.mark.parametrize("second", [ONE_BY_ONE, STACKED])
def test_any_backend_goes_on_from_the_state_of_any_other(first: str, second: str) -> None:
    whole, begun = build(ONE_BY_ONE, MODEL, TRAININGS), build(first, MODEL, TRAININGS)
    train(whole, range(10))
    train(begun, range(4))
    resumed = build(second, MODEL, [replace(training, seed=99) for training in TRAININGS])
    for member in range(4):
        state = {name: tensor.clone() for name, tensor in begun.state(member).items()}
        assert set(state) == set(build(ONE_BY_ONE, MODEL, TRAININGS[:1]).state(0))
        resumed.load(member, state, 4)
    train(resumed, range(4, 10))
    assert same_members(whole, resumed) < 5e-6


def test_every_member_is_evaluated_on_the_same_tokens_as_alone() -> None:
    apart, stacked = build(ONE_BY_ONE, MODEL, TRAININGS), build(STACKED, MODEL, TRAININGS)
    documents = [HeldOutDocument(tuple(range(1, length)), 3 * length) for length in (5, 16, 40)]
    tasks = {"a": held_out_task(documents, 0, 16), "b": held_out_task(documents[:1], 0, 16)}
    before, after = stacked.evaluate(tasks), None
    for expected, found in zip(apart.evaluate(tasks), before, strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    train(stacked, range(3))
    after = stacked.evaluate(tasks)
    assert all(one["a"] != other["a"] for one, other in zip(before, after, strict=True))


def test_an_untied_head_is_stacked_too() -> None:
    untied = replace(MODEL, name="untied", tied_embeddings=False)
    apart = build(ONE_BY_ONE, untied, TRAININGS, dtype=torch.float64)
    stacked = build(STACKED, untied, TRAININGS, dtype=torch.float64)
    np.testing.assert_allclose(train(stacked, range(5)), train(apart, range(5)), rtol=0, atol=1e-13)


def test_the_accelerators_update_is_the_fused_one() -> None:
    """What a CUDA graph holds, run on the CPU beside PyTorch's kernel, a frozen and a NaN row among them."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 30, generator=generator, dtype=torch.float64)
    rowwise, at_once = (StackedAdamW(start.clone(), [20, 10], 20, 0.1) for _ in range(2))
    for step in range(1, 6):
        gradients = torch.randn(4, 30, generator=generator, dtype=torch.float64)
        gradients[3] = float("nan")
        losses = torch.ones(4, dtype=torch.float64)
        schedule = torch.tensor([[rate, step] for rate in (1e-2, 0.0, 3e-3, 1e-2)], dtype=torch.float64)
        norms = rowwise.step(gradients.clone(), losses, 2.0, schedule)
        at_once.update_together(gradients.clone(), losses, norms, 2.0, schedule)
    for mine, theirs in (
        (rowwise.values, at_once.values),
        (rowwise.averages[:1], at_once.averages[:1]),
        (rowwise.squares[:1], at_once.squares[:1]),
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-13)
    assert torch.equal(rowwise.values[1], start[1])
    assert torch.equal(rowwise.values[3], start[3])


def test_the_accelerators_head_is_the_one_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(3, n, 8, generator=generator, dtype=torch.float64) for n in (10, 20))
    targets = torch.randint(20, (3, 10), generator=generator)
    here, there = (torch.full((3, 20, 8), float("nan"), dtype=torch.float64) for _ in range(2))
    expected = (*stacked_loss_and_gradients(hidden, weight, targets, here), here)
    monkeypatch.setattr("proxy_models.model.stacked_model.BLOCK_LOGITS", 3 * 20 * 4)
    found = (*together(hidden, weight, targets, there), there)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-13)


def test_a_row_holds_a_whole_model() -> None:
    backend = Stacked(MODEL, TRAININGS)
    assert backend.stack.values.shape == (4, MODEL.parameters)
    for member, training in enumerate(TRAININGS):
        alone = dict(Decoder(MODEL, training.seed).named_parameters())
        assert set(alone) == set(AdamW(alone.items(), 0).parameters)
        for name, value in backend.parameters(member).items():
            assert torch.equal(value, alone[name])
