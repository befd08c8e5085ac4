import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from proxy_models.config import ModelConfig
from proxy_models.evaluation import (
    continuation_task,
    continuation_windows,
    evaluate,
    held_out_task,
    whole_text_windows,
)
from proxy_models.model.model import Decoder
from proxy_models.text.task_file import TaskExample
from proxy_models.text.token_shard import HeldOutDocument
from tests.proxy_models.conftest import Pool

LENGTH = 32


@pytest.fixture(scope="module")
def model() -> Decoder:
    return Decoder(ModelConfig("small", 1, 32, 2, 32, 1e-2, vocabulary_size=512), seed=1)


@pytest.fixture(scope="module")
def uniform() -> Decoder:
    model = Decoder(ModelConfig("uniform", 1, 16, 1, 16, 1e-2, vocabulary_size=512))
    with torch.no_grad():
        model.embedding.zero_()
    return model


def test_a_uniform_model_spends_log2_v_bits_a_token(uniform: Decoder, pool: Pool) -> None:
    examples = [
        TaskExample("x = 1\n" * 40, " print(x)\n"),
        TaskExample("", "naïve ☃ " * 50),
        TaskExample("a", " return None"),
    ]
    counts = [len(pool.tokenizer.encode(example.continuation)) for example in examples]
    sizes = [len(example.continuation.encode()) for example in examples]
    documents = [HeldOutDocument(tuple(range(n)), 3 * n) for n in (1, 32, 33, 200)]
    found = evaluate(
        uniform,
        {
            "task": continuation_task(examples, pool.tokenizer, LENGTH),
            "slice": held_out_task(documents, 0, LENGTH),
        },
    )
    assert found["task"] == pytest.approx(
        np.mean([9 * n / size for n, size in zip(counts, sizes, strict=True)])
    )
    assert found["slice"] == pytest.approx(9 / 3)


def test_bits_are_those_of_the_gold_continuation(model: Decoder, pool: Pool) -> None:
    """Against one unpadded forward pass per example, with the leading space scored."""
    examples = [
        TaskExample("def f(x):\n    return", " x + 1"),
        TaskExample("import", " os"),
        TaskExample("", "class"),
    ]
    expected = []
    for example in examples:
        context = [pool.tokenizer.end_of_text, *pool.tokenizer.encode(example.context)]
        tokens = torch.tensor([context + pool.tokenizer.encode(example.continuation)])
        with torch.no_grad():
            nats = functional.cross_entropy(
                model.logits(model(tokens[:, :-1]))[0], tokens[0, 1:], reduction="none"
            )
        bits = nats[len(context) - 1 :].double().sum().item() / math.log(2)
        expected.append(bits / len(example.continuation.encode()))
    found = evaluate(model, {"task": continuation_task(examples, pool.tokenizer, LENGTH)})["task"]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_long_context_is_cut_on_the_left(model: Decoder, pool: Pool) -> None:
    tail = "value = compute(first, second)\n" * 8
    one = continuation_task([TaskExample("import os\n" * 50 + tail, "return")], pool.tokenizer, LENGTH)
    other = continuation_task([TaskExample("class A:\n" * 50 + tail, "return")], pool.tokenizer, LENGTH)
    assert one.windows == other.windows
    assert len(one.windows[0].tokens) == LENGTH + 1


def test_batches_and_companions_do_not_move_a_task(
    model: Decoder, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [TaskExample("x" * n, " yes" * (1 + n % 5)) for n in range(1, 40)]
    task = continuation_task(examples, pool.tokenizer, LENGTH)
    slice_ = held_out_task([HeldOutDocument(tuple(range(1, 100)), 250)], 0, LENGTH)
    alone = evaluate(model, {"task": task})["task"]
    together = evaluate(model, {"slice": slice_, "task": task})["task"]
    monkeypatch.setattr("proxy_models.evaluation.BATCH_TOKENS", 1)
    monkeypatch.setattr("proxy_models.evaluation.BATCH_LOGITS", 3 * 512)
    one_by_one = evaluate(model, {"task": task})["task"]
    assert alone == pytest.approx(together, rel=1e-6) == pytest.approx(one_by_one, rel=1e-6)


@given(st.integers(0, 80), st.integers(1, 100), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_every_continuation_token_is_scored_once_with_context(context: int, count: int, length: int) -> None:
    tokens = tuple(range(1 + context + count))
    windows = continuation_windows(3, tokens[: 1 + context], tokens[1 + context :], length)
    scored = [token for window in windows for token in window.tokens[len(window.tokens) - window.scored :]]
    assert scored == list(tokens[1 + context :])
    for window in windows:
        assert window.document == 3
        assert 1 <= len(window.tokens) - 1 <= length
        unseen = window.tokens[0]
        assert unseen == 0 or len(window.tokens) - window.scored >= length // 2


@given(st.integers(1, 100), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_every_token_of_a_text_is_scored_once(count: int, length: int) -> None:
    windows = whole_text_windows(0, range(1, count + 1), 0, length)
    assert [token for window in windows for token in window.tokens[1:]] == list(range(1, count + 1))
    assert all(window.scored == len(window.tokens) - 1 <= length for window in windows)
    assert windows[0].tokens[0] == 0
