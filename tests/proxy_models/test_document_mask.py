"""Where attention stays within documents, a packed row is its documents trained on apart."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from proxy_models.backends import ONE_BY_ONE, STACKED, STACKED_COMPILED, build, compiler_problem
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.model.model import Decoder
from proxy_models.model.stacked_model import StackedDecoder
from proxy_models.planning.memory import bytes_per_model
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.step import document_mask
from proxy_models.training.wave import WaveOptions, train_run, train_wave

END = 3
MODEL = ModelConfig("small", 2, 32, 2, 48, 1e-2, vocabulary_size=64)
TRAINING = TrainingConfig(
    tokens=50 * 4 * 16, sequence_length=16, batch_rows=4, clip=0.5, attend_across_documents=False
)
TRAININGS = [replace(TRAINING, seed=seed) for seed in range(3)]
RATES = (2e-3, 1e-3, 3e-3)


def batches(step: int) -> np.ndarray:
    """Chains that can be learned, so that training is no chaos, with an end of text every five tokens: (3, 4, 17)."""
    generator = np.random.default_rng(step)
    rows = np.cumsum(generator.integers(0, 3, (3, 4, 17)), axis=2) * 5 % 64
    return np.where(generator.random(rows.shape) < 0.2, END, rows)


def documents_of(row: Tensor) -> list[slice]:
    """Stretches that begin at an end of text, and what is before the first."""
    marks = [0, *(index for index, token in enumerate(row.tolist()) if token == END and index), len(row)]
    return [slice(*pair) for pair in pairwise(marks)]


@given(st.lists(st.lists(st.sampled_from([END, 1, 2]), min_size=7, max_size=7), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_position_sees_what_is_before_it_in_its_document(rows: list[list[int]]) -> None:
    mask = document_mask(torch.tensor(rows), END)
    assert mask.shape == (len(rows), 1, 7, 7)
    for row, seen in zip(rows, mask[:, 0].tolist(), strict=True):
        for query in range(7):
            for key in range(7):
                assert seen[query][key] == (key <= query and END not in row[key + 1 : query + 1])


def test_hidden_states_and_gradients_are_those_of_each_document_alone() -> None:
    decoder = Decoder(MODEL, 0).double()
    batch = torch.from_numpy(batches(0)[0])
    tokens, targets = batch[:, :-1], batch[:, 1:]
    packed = decoder(tokens, document_mask(tokens, END))
    alone = torch.cat([decoder(row[None, part])[0] for row in tokens for part in documents_of(row)]).view_as(
        packed
    )
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-12)
    assert (decoder(tokens) - alone).abs().max() > 0.1  # attention across documents is something else
    parameters = list(decoder.parameters())
    mine = torch.autograd.grad(decoder.loss(tokens, targets, document_mask(tokens, END)), parameters)
    logits = alone @ decoder.head_weight.t()
    theirs = torch.autograd.grad(
        functional.cross_entropy(logits.flatten(0, 1), targets.flatten()), parameters
    )
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_stack_gives_the_states_of_each_document_alone() -> None:
    stack = StackedDecoder(MODEL, [0, 1, 2], dtype=torch.float64)
    tokens = torch.from_numpy(batches(0))[:, :, :-1]
    packed = stack.hidden(tokens, mask=document_mask(tokens, END))
    for member in range(3):
        decoder = Decoder(MODEL, member).double()
        for row, states in zip(tokens[member], packed[member], strict=True):
            for part in documents_of(row):
                torch.testing.assert_close(states[part], decoder(row[None, part])[0], rtol=0, atol=1e-12)


def train(
    name: str, dtype: torch.dtype, training: TrainingConfig = TRAINING
) -> tuple[np.ndarray, list[Tensor]]:
    """Losses and norms of 20 steps, and every parameter after them."""
    backend = build(name, MODEL, [replace(training, seed=seed) for seed in range(3)], dtype=dtype)
    backend.separate_documents(END)
    found = [backend.learn(batches(step), RATES) for step in range(20)]
    values = [value for member in range(3) for _, value in sorted(backend.parameters(member).items())]
    return np.array([(one.losses, one.norms) for one in found]), values


def test_stacked_equals_separate_training_within_documents() -> None:
    (expected, theirs), (found, mine) = train(ONE_BY_ONE, torch.float64), train(STACKED, torch.float64)
    assert (expected[:, 1] > TRAINING.clip).mean() > 0.5  # clipping was active
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    across = train(ONE_BY_ONE, torch.float64, replace(TRAINING, attend_across_documents=True))[0]
    assert np.abs(across - expected).max() > 1e-3


@pytest.mark.long
@pytest.mark.skipif(compiler_problem() is not None, reason=f"nothing can be compiled: {compiler_problem()}")
def test_a_compiled_body_keeps_to_documents_too() -> None:
    (expected, theirs), (found, mine) = (
        train(ONE_BY_ONE, torch.float32),
        train(STACKED_COMPILED, torch.float32),
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [ONE_BY_ONE, STACKED])
def test_without_the_token_that_documents_begin_at_nothing_is_trained(name: str) -> None:
    backend = build(name, MODEL, TRAININGS)
    with pytest.raises(InvalidSpec, match="documents begin at") as caught:
        backend.learn(batches(0), RATES)
    assert caught.value.field == "attend_across_documents"
    with pytest.raises(InvalidSpec, match="true or false"):
        replace(TRAINING, attend_across_documents="no")  # pyright: ignore[reportArgumentType]


def test_the_mask_is_counted_as_memory() -> None:
    across = bytes_per_model(MODEL, replace(TRAINING, attend_across_documents=True))
    assert bytes_per_model(MODEL, TRAINING) == across + 4 * 16 * 16 * 5


def test_a_run_keeps_to_documents_alone_and_in_a_wave_and_says_so(spec_json: dict, tmp_path: Path) -> None:
    def spec(place: str, **training: object) -> RunSpec:
        settings_ = {**spec_json["training"], "tokens": 5_000, **training}
        return RunSpec.from_dict({**spec_json, "directory": str(tmp_path / place), "training": settings_})

    across = spec("across")
    within, stacked = (spec(place, attend_across_documents=False) for place in ("within", "stacked"))
    assert within.fingerprint() == stacked.fingerprint() != across.fingerprint()
    assert across.fingerprint() == spec("said", attend_across_documents=True).fingerprint()
    alone = train_run(within).final
    (together,) = train_wave([stacked], WaveOptions(STACKED))
    assert not isinstance(together, Exception)
    assert together.final == pytest.approx(alone, abs=5e-6)
    assert max(abs(value - alone[task]) for task, value in train_run(across).final.items()) > 1e-4
