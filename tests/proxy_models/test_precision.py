"""Training in bfloat16: products are rounded, nothing else is, and what is found is the same but for that."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from proxy_models.backends import (
    COMPILED,
    GRAPH,
    ONE_BY_ONE,
    STACKED,
    STACKED_COMPILED,
    Backend,
    build,
    compiler_problem,
)
from proxy_models.config import BFLOAT16, FLOAT32, PRECISIONS, ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec, NotCalibrated
from proxy_models.evaluation import held_out_task
from proxy_models.families.architecture import Architecture
from proxy_models.model import products
from proxy_models.model.stacked_model import StackedDecoder, stacked_loss_and_gradients, together
from proxy_models.planning.calibration import Calibration, Device, Rate, SwarmSize, choose, shape_of
from proxy_models.planning.memory import bytes_per_model, logits_bytes
from proxy_models.text.token_shard import HeldOutDocument
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.step import build_model
from proxy_models.training.wave import WaveOptions, train_run, train_wave

MODEL = ModelConfig("small", 2, 64, 2, 96, 1e-2, vocabulary_size=128)
TRAINING = TrainingConfig(tokens=40 * 4 * 16, sequence_length=16, batch_rows=4, precision=BFLOAT16)
TRAININGS = [replace(TRAINING, seed=seed) for seed in range(3)]
RATES = (4e-3, 2e-3, 3e-3)
UNIT = 2.0**-8
"""How far a bfloat16 is from its neighbour, relative to it."""


def batch(step: int, members: Sequence[int] = range(3)) -> np.ndarray:
    """Steps of the member's own around a circle of tokens: what comes next can be learned."""
    drawn = [np.random.default_rng([step, member]).integers(1, 3, (4, 17)) for member in members]
    return np.stack(
        [(np.cumsum(rows, axis=1) * (3 + m)) % 128 for m, rows in zip(members, drawn, strict=True)]
    )


def train(backend: Backend, steps: range, members: Sequence[int] = range(3)) -> np.ndarray:
    """Losses, (steps, N)."""
    rates = [RATES[member] for member in members]
    return np.array([backend.learn(batch(step, members), rates).losses for step in steps])


def gradients(dtype: torch.dtype, lower: torch.dtype | None) -> dict[str, Tensor]:
    """Of three models' losses, in float64."""
    stack = StackedDecoder(MODEL, [0, 1, 2], dtype=dtype, lower=lower)
    out = stack.parts(torch.empty_like(stack.values))
    rows = torch.from_numpy(batch(0))
    losses = stack.losses_and_gradients(rows[:, :, :-1], rows[:, :, 1:], out)
    return {"loss": losses.double(), **{name: part.double() for name, part in out.items()}}


def test_gradients_are_those_of_float64_but_for_the_rounding() -> None:
    exact, rounded = gradients(torch.float64, None), gradients(torch.float32, torch.bfloat16)
    for name, value in exact.items():
        error = float((rounded[name] - value).norm() / value.norm())
        assert error < 8 * UNIT, name
    assert float((rounded["embedding"] - exact["embedding"]).norm() / exact["embedding"].norm()) > UNIT / 16


def test_one_model_alone_and_a_stack_learn_alike_and_as_in_float32() -> None:
    steps = range(40)
    alone, stacked = (train(build(name, MODEL, TRAININGS), steps) for name in (ONE_BY_ONE, STACKED))
    full = train(build(STACKED, MODEL, [replace(one, precision=FLOAT32) for one in TRAININGS]), steps)
    assert (full[-1] < full[0] - 1).all()  # something was learned
    # A rounded logit moves one position's loss by up to UNIT of it; the mean over 64 of them hardly moves.
    np.testing.assert_allclose(stacked, alone, rtol=0, atol=2 * UNIT)
    np.testing.assert_allclose(stacked, full, rtol=0, atol=8 * UNIT)
    assert (stacked != full).all()


@pytest.mark.long
@pytest.mark.skipif(compiler_problem() is not None, reason=f"nothing can be compiled: {compiler_problem()}")
@pytest.mark.parametrize("name", [COMPILED, STACKED_COMPILED])
def test_compiled_bodies_learn_alike(name: str) -> None:
    eager, compiled = (train(build(each, MODEL, TRAININGS), range(20)) for each in (STACKED, name))
    np.testing.assert_allclose(compiled, eager, rtol=0, atol=2 * UNIT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: the captured graph was not run")
def test_a_captured_graph_learns_alike() -> None:
    eager, graphed = (train(build(name, MODEL, TRAININGS, "cuda"), range(20)) for name in (STACKED, GRAPH))
    np.testing.assert_allclose(graphed, eager, rtol=0, atol=2 * UNIT)


def test_a_member_does_not_depend_on_its_companions() -> None:
    everyone = build(STACKED, MODEL, TRAININGS)
    train(everyone, range(10))
    for members in ([1], [2, 0]):
        some = build(STACKED, MODEL, [TRAININGS[member] for member in members])
        train(some, range(10), members)
        for mine, theirs in enumerate(members):
            expected = everyone.parameters(theirs)
            assert all(torch.equal(value, expected[n]) for n, value in some.parameters(mine).items())


@pytest.mark.parametrize("name", [ONE_BY_ONE, STACKED])
def test_what_is_kept_is_not_rounded_and_goes_on_to_the_same_numbers(name: str) -> None:
    whole, begun = build(name, MODEL, TRAININGS), build(name, MODEL, TRAININGS)
    train(whole, range(8))
    train(begun, range(3))
    resumed = build(name, MODEL, [replace(one, seed=99) for one in TRAININGS])
    for member in range(3):
        state = {key: tensor.clone() for key, tensor in begun.state(member).items()}
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
        resumed.load(member, state, 3)
    train(resumed, range(3, 8))
    for member in range(3):
        expected = whole.parameters(member)
        assert all(torch.equal(value, expected[key]) for key, value in resumed.parameters(member).items())


@pytest.mark.parametrize("name", [ONE_BY_ONE, STACKED])
def test_evaluation_is_that_of_the_same_weights_in_float32(name: str) -> None:
    rounded = build(name, MODEL, TRAININGS)
    train(rounded, range(3))
    exact = build(name, MODEL, [replace(one, precision=FLOAT32) for one in TRAININGS])
    for member in range(3):
        exact.load(member, rounded.state(member), 3)
    tasks = {"a": held_out_task([HeldOutDocument(tuple(range(1, 40)), 90)], 0, 16)}
    assert rounded.evaluate(tasks) == exact.evaluate(tasks)


def test_the_accelerators_head_is_the_one_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(3, n, 64, generator=generator).bfloat16() for n in (10, 20))
    targets = torch.randint(20, (3, 10), generator=generator)
    here, there = (torch.full((3, 20, 64), float("nan")) for _ in range(2))
    expected = (*stacked_loss_and_gradients(hidden, weight, targets, here), here)
    monkeypatch.setattr("proxy_models.model.stacked_model.BLOCK_LOGITS", 3 * 20 * 4)
    found = (*together(hidden, weight, targets, there), there)
    for mine, theirs in zip(found, expected, strict=True):
        error = (mine.double() - theirs.double()).norm() / theirs.double().norm()
        assert float(error) < 2 * UNIT


@pytest.mark.parametrize("onednn", [True, False], ids=["oneDNN", "MKL or OpenBLAS"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [ONE_BY_ONE, STACKED])
def test_a_step_stays_within_the_memory_that_was_estimated(
    name: str, precision: str, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "ONEDNN", onednn and products.has_onednn())
    model = replace(MODEL, vocabulary_size=50_304)
    training = TrainingConfig(tokens=10**6, sequence_length=64, batch_rows=8, precision=precision)
    backend = build(name, model, [training])
    rows = np.random.default_rng(0).integers(0, 50_304, (1, 8, 65))
    backend.learn(rows, [1e-3])  # what is allocated once is there from now on
    kept = sum(tensor.nbytes for tensor in backend.state(0).values())
    gc.collect()  # what is freed of earlier tests meanwhile would count against this step
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        backend.learn(rows, [1e-3])
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    if name == STACKED:  # its gradients' buffer stays between steps
        kept += 4 * model.parameters
    peak = kept + int(held.max())
    assert 0.7 < peak / (bytes_per_model(model, training) + logits_bytes("cpu")) < 1


def test_a_model_of_transformers_is_trained_in_it_too() -> None:
    shape = Architecture(
        {
            "model_type": "olmoe",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
        128,
    )
    rows = torch.from_numpy(batch(0)[0])
    losses = {}
    for precision in PRECISIONS:
        model = build_model(shape, replace(TRAINING, precision=precision), "cpu", torch.float32)
        loss = model.loss(rows[:, :-1], rows[:, 1:])
        loss.backward()
        assert {p.dtype for _, p in model.named_parameters()} == {torch.float32}
        assert model.logits(model(rows)[0]).dtype == torch.float32
        losses[precision] = loss.item()
    assert losses[BFLOAT16] == pytest.approx(losses[FLOAT32], rel=2 * UNIT)
    assert losses[BFLOAT16] != losses[FLOAT32]


def test_a_run_says_in_what_it_was_trained(spec_json: dict, tmp_path: Path) -> None:
    def spec(place: str, **training: object) -> RunSpec:
        settings = {**spec_json["training"], "tokens": 5_000, **training}
        return RunSpec.from_dict({**spec_json, "directory": str(tmp_path / place), "training": settings})

    plain, alone, stacked = spec("plain"), *(spec(place, precision=BFLOAT16) for place in ("a", "s"))
    assert plain.fingerprint() == spec("said", precision=FLOAT32).fingerprint() != alone.fingerprint()
    (together_,) = train_wave([stacked], WaveOptions(STACKED))
    assert not isinstance(together_, Exception)
    found, exact = train_run(alone).final, train_run(plain).final
    assert together_.final == pytest.approx(found, rel=2 * UNIT)
    assert found == pytest.approx(exact, rel=4 * UNIT)
    assert found != exact


def test_another_precision_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="float32, bfloat16, not 'float16'") as caught:
        replace(TRAINING, precision="float16")
    assert caught.value.field == "precision"


def test_rates_of_one_precision_say_nothing_of_the_other() -> None:
    exact = replace(TRAINING, precision=FLOAT32)
    rate = Rate(shape_of(MODEL, BFLOAT16), TRAINING.tokens_per_step, STACKED, 4, 1e4, 0.0)
    table = Calibration(Device("a", "cpu", "2", 1), 2**34, (rate,))
    assert choose(SwarmSize(MODEL, TRAINING, 8), table).rate == rate
    with pytest.raises(NotCalibrated, match="small"):
        choose(SwarmSize(MODEL, exact, 8), table)
