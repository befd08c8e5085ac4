"""Choices ranked by their log-likelihood, and files of them."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from proxy_models.config import ModelConfig
from proxy_models.errors import CorpusError, InvalidSpec, NoChoices
from proxy_models.evaluation import continuation_task, evaluate, evaluate_stack
from proxy_models.model.model import Decoder
from proxy_models.model.stacked_model import StackedDecoder
from proxy_models.text.task_file import Normalization, TaskExample, TaskMeasure, read_task
from tests.proxy_models.conftest import Pool

LENGTH = 32
CONFIG = ModelConfig("small", 1, 32, 2, 32, 1e-2, vocabulary_size=512)
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "character", "token", "byte")


def question(context: str, *choices: str, gold: int) -> TaskExample:
    return TaskExample(context, choices[gold], choices)


QUESTIONS = [
    question("def f(x):\n    return", " x", " x + 1", " None if x is None else x + 1", gold=gold)
    for gold in (0, 1, 2)
] + [
    question("import", " os", " naïve ☃ ☃ ☃", gold=0),
    question("import", " numpy", " naïve", " os", " collections.abc", gold=1),
    question("", "class A:", "x", gold=1),
    question("x = 1\n" * 40, " return " * 30, " y", " z", gold=0),
]


def nats_of(model: Decoder, pool: Pool, context: str, choice: str) -> tuple[float, int]:
    """Negative log-likelihood of a short choice by one plain pass over context and choice, and its tokens."""
    before = [pool.tokenizer.end_of_text, *pool.tokenizer.encode(context)]
    after = pool.tokenizer.encode(choice)
    tokens = torch.tensor([(before + after)[-(LENGTH + 1) :]])
    with torch.no_grad():
        logits = model.logits(model(tokens[:, :-1]))[0]
    nats = functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
    return float(nats[-len(after) :].double().sum()), len(after)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_ranking_is_that_of_scoring_every_choice_alone(
    pool: Pool, normalization: Normalization, seed: int
) -> None:
    model = Decoder(CONFIG, seed)
    short = QUESTIONS[:-1]  # no choice of these is cut into windows
    right, bits = [], []
    for example in short:
        scores = []
        for choice in example.choices:
            nats, tokens = nats_of(model, pool, example.context, choice)
            length = {"none": 1, "character": len(choice), "token": tokens, "byte": len(choice.encode())}
            scores.append(nats / length[normalization])
            if choice == example.continuation:
                bits.append(nats / math.log(2) / len(choice.encode()))
        right.append(int(np.argmin(scores)) == example.choices.index(example.continuation))
    measure = TaskMeasure("bpb", normalization)
    found = evaluate(model, {"task": continuation_task(short, pool.tokenizer, LENGTH, measure)})
    assert found == {
        "task": pytest.approx(np.mean(bits), rel=1e-5),
        "task/accuracy": pytest.approx(np.mean(right)),
    }


def test_the_gold_continuations_bpb_does_not_depend_on_the_other_choices(pool: Pool) -> None:
    model = Decoder(CONFIG, 5)
    alone = [TaskExample(example.context, example.continuation) for example in QUESTIONS]
    tasks = {
        "ranked": continuation_task(QUESTIONS, pool.tokenizer, LENGTH),
        "alone": continuation_task(alone, pool.tokenizer, LENGTH),
    }
    found = evaluate(model, tasks)
    assert found["ranked"] == pytest.approx(found["alone"], rel=1e-6)
    assert set(found) == {"ranked", "ranked/accuracy", "alone"}


def test_with_accuracy_as_the_metric_the_bpb_is_what_is_reported_beside_it(pool: Pool) -> None:
    model = Decoder(CONFIG, 5)
    smooth = continuation_task(QUESTIONS, pool.tokenizer, LENGTH)
    ranked = continuation_task(QUESTIONS, pool.tokenizer, LENGTH, TaskMeasure("accuracy"))
    first, second = evaluate(model, {"t": smooth}), evaluate(model, {"t": ranked})
    assert second == {"t": first["t/accuracy"], "t/bpb": first["t"]}


def test_every_model_of_a_stack_ranks_as_it_would_alone(pool: Pool) -> None:
    models = [Decoder(CONFIG, seed) for seed in range(4)]
    stack = StackedDecoder(CONFIG, list(range(4)))
    tasks = {
        normalization: continuation_task(
            QUESTIONS, pool.tokenizer, LENGTH, TaskMeasure("accuracy", normalization)
        )
        for normalization in NORMALIZATIONS
    }
    for model, found in zip(models, evaluate_stack(stack, tasks), strict=True):
        assert found == pytest.approx(evaluate(model, tasks), rel=1e-5)


class TestKnownModels:
    """Models whose likelihoods can be told by hand."""

    def test_a_model_that_knows_the_next_token_is_always_right(self, pool: Pool) -> None:
        """One that has every token predict its successor in one text: the text goes on as it did."""
        context, right, wrong = "QZ", "XJKVW", "WVKJX"
        tokens = pool.tokenizer.encode(context) + pool.tokenizer.encode(right)
        following = dict(pairwise([pool.tokenizer.end_of_text, *tokens]))
        assert len(following) == len(tokens), "every token comes once, so each has one successor"
        model = successor_model(following)
        for choices in ((right, wrong), (wrong, right)):
            gold, other = choices.index(right), choices.index(wrong)
            for normalization in NORMALIZATIONS:
                measure = TaskMeasure("accuracy", normalization)
                for index, expected in ((gold, 1.0), (other, 0.0)):
                    example = question(context, *choices, gold=index)
                    task = continuation_task([example], pool.tokenizer, LENGTH, measure)
                    assert evaluate(model, {"t": task})["t"] == expected

    def test_a_uniform_model_prefers_the_fewest_tokens_a_unit(self, pool: Pool) -> None:
        """Each token costs it 9 bits, so the ranking is by tokens, tokens per character or per byte."""
        model = uniform_model()
        choices = (" a b c d e f g h", " ☃☃☃☃☃☃☃☃", " return")
        counts = np.array([len(pool.tokenizer.encode(choice)) for choice in choices])
        units = {
            "none": np.ones(3),
            "character": np.array([len(choice) for choice in choices]),
            "byte": np.array([len(choice.encode()) for choice in choices]),
        }
        for normalization, unit in units.items():
            best = int(np.argmin(counts / unit))
            measure = TaskMeasure("accuracy", normalization)  # pyright: ignore[reportArgumentType]
            for gold in range(3):
                task = continuation_task([question("x", *choices, gold=gold)], pool.tokenizer, 64, measure)
                assert evaluate(model, {"t": task})["t"] == float(gold == best)

    def test_equal_choices_are_worth_their_share(self, pool: Pool) -> None:
        """Per token all choices of a uniform model are equal, and no position of the right one helps."""
        measure = TaskMeasure("accuracy", "token")
        for gold in range(4):
            example = question("x", " a", " b", " c", " d", gold=gold)
            task = continuation_task([example], pool.tokenizer, LENGTH, measure)
            assert evaluate(uniform_model(), {"t": task})["t"] == 0.25

    def test_a_model_that_is_no_number_has_no_accuracy(self, pool: Pool) -> None:
        """Also where only a wrong choice is lost: a run with such a model diverged, it did not do badly."""
        model = Decoder(CONFIG, 0)
        lost = pool.tokenizer.encode(" ☃")[-1]
        kept = {*pool.tokenizer.encode(" return"), *pool.tokenizer.encode("x"), pool.tokenizer.end_of_text}
        assert lost not in kept
        ranking = continuation_task(
            [question("x", " return", " ☃", gold=0)], pool.tokenizer, LENGTH, TaskMeasure("accuracy")
        ).ranking
        assert ranking is not None
        assert math.isnan(ranking.accuracy(np.array([1.0, math.nan])))
        assert math.isnan(ranking.accuracy(np.array([1.0, math.inf])))
        with torch.no_grad():
            model.embedding.fill_(math.nan)
        task = continuation_task(QUESTIONS, pool.tokenizer, LENGTH, TaskMeasure("accuracy"))
        assert all(math.isnan(value) for value in evaluate(model, {"t": task}).values())


def uniform_model() -> Decoder:
    model = Decoder(ModelConfig("uniform", 1, 16, 1, 16, 1e-2, vocabulary_size=512))
    with torch.no_grad():
        model.embedding.zero_()
    return model


def successor_model(following: dict[int, int]) -> Decoder:
    """An untied model without a body whose logits are one row of a table: the successor's is high."""
    config = ModelConfig("successor", 1, 512, 4, 16, 1e-2, vocabulary_size=512, tied_embeddings=False)
    model = Decoder(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("attention_out", "ffn_out")):
                parameter.zero_()
        model.embedding.copy_(torch.eye(512))
        assert model.head is not None
        model.head.zero_()
        for token, successor in following.items():
            model.head[successor, token] = 1.0
    return model


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n", encoding="utf-8")
    return path


GOOD = {"context": "2 + 2 =", "choices": [" 3", " 4"], "gold": 1}


def test_a_file_of_choices_is_read_as_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {**GOOD, "source": "kept out"})
    assert read_task(path, "accuracy") == (TaskExample("2 + 2 =", " 4", (" 3", " 4")),)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({**GOOD, "gold": 2}, "'gold' is 2; the choices are 0 to 1"),
        ({**GOOD, "gold": -1}, "'gold' is -1"),
        ({**GOOD, "gold": True}, "no whole number 'gold'"),
        ({**GOOD, "gold": "1"}, "no whole number 'gold'"),
        ({"context": "", "choices": [" a", " b"]}, "no whole number 'gold'"),
        ({**GOOD, "choices": [" 4"], "gold": 0}, "1 choices; ranking takes at least two"),
        ({**GOOD, "choices": []}, "0 choices"),
        ({**GOOD, "choices": [" 3", ""]}, "choice 1 is empty"),
        ({**GOOD, "choices": [" 3", " 4", " 3"]}, "choices 0 and 2 are the same"),
        ({**GOOD, "choices": " 3"}, "'choices' is not a list of strings"),
        ({**GOOD, "choices": [" 3", 4]}, "'choices' is not a list of strings"),
        ({**GOOD, "choices": [" 3", "\ud800"]}, "half of a surrogate pair"),
        ({"choices": [" 3", " 4"], "gold": 0}, "no string 'context'"),
        ({**GOOD, "continuation": " 4"}, "both 'continuation' and 'choices'"),
        ({"context": "a", "continuation": " b"}, "has a continuation where the first record has choices"),
    ],
)
def test_what_cannot_be_ranked_is_refused_with_file_and_line(
    tmp_path: Path, record: object, said: str
) -> None:
    path = write(tmp_path / "bad.jsonl", GOOD, record)
    with pytest.raises(CorpusError) as caught:
        read_task(path)
    assert caught.value.line == 2
    assert f"{path}, line 2: " in str(caught.value)
    assert said in str(caught.value)


def test_an_accuracy_needs_choices(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.jsonl", {"context": "a", "continuation": " b"})
    assert len(read_task(path)) == 1
    with pytest.raises(NoChoices) as caught:
        read_task(path, "accuracy")
    assert (caught.value.line, caught.value.field, caught.value.code) == (1, "metric", "no_choices")


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(InvalidSpec) as caught:
        TaskMeasure("f1")  # pyright: ignore[reportArgumentType]
    assert caught.value.field == "metric"
    with pytest.raises(InvalidSpec):
        TaskMeasure("bpb", "word")  # pyright: ignore[reportArgumentType]
