"""A run goes on from a saved model: its numbers, its learning rate, and nothing that could run code."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from proxy_models.config import size_named
from proxy_models.errors import InvalidSpec, ProxyError, TooLittleText, UnfitStart
from proxy_models.families.architecture import Architecture, checked_architecture
from proxy_models.families.start import decoder_shapes, read_start
from proxy_models.families.transformers_model import configuration
from proxy_models.model.model import Decoder
from proxy_models.training.run_inputs import mixture_sampler, open_shards, starting_state
from proxy_models.training.run_record import RunResult
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.step import Learned, Learner
from proxy_models.training.wave import WaveOptions, train_run, train_wave
from tests.proxy_models.conftest import Pool, load_model
from tests.proxy_models.test_families import FAMILIES, Stopped, numbers


def train(spec_json: dict, **changes: Any) -> RunResult:
    return train_run(RunSpec.from_dict({**spec_json, **changes}))


def with_training(spec_json: dict, **changes: Any) -> dict:
    return {**spec_json, "training": {**spec_json["training"], **changes}}


@pytest.fixture
def first(spec_json: dict) -> tuple[dict, RunResult]:
    """A short run of our own decoder, and its order."""
    order = with_training({**spec_json, "directory": spec_json["directory"] + "-first"}, tokens=10_000)
    return order, train(order)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as the library's own ``save_pretrained`` writes it, with a padded vocabulary."""
    folder = tmp_path / "published"
    shape = Architecture(checked_architecture(FAMILIES["llama"]), 576)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(configuration(shape), dtype=torch.float32).save_pretrained(folder)
    return folder


def test_a_saved_model_says_where_its_training_ended(first: tuple[dict, RunResult], pool: Pool) -> None:
    order, result = first
    content = json.loads((result.model_path / "training.json").read_text())
    peak = size_named("nano-0.1M").default_learning_rate
    assert content["learning_rate"] == pytest.approx(0.05 * peak)  # the floor of the schedule
    assert content["tokens"] == result.tokens
    assert content["tokenizer"] == pool.tokenizer.fingerprint
    again = train(
        with_training({**order, "start": str(result.model_path)}, tokens=5_120),
        directory=order["directory"] + "-more",
    )
    assert json.loads((again.model_path / "training.json").read_text())["tokens"] == result.tokens + 5_120


def test_it_goes_on_from_the_models_numbers_at_the_recorded_rate_without_warm_up(
    first: tuple[dict, RunResult],
) -> None:
    """The same steps taken by hand: the saved parameters, fresh moments, a straight line down from the rate's end."""
    order, result = first
    more = with_training({**order, "directory": order["directory"] + "-more"}, tokens=2_560, seed=9)
    spec = RunSpec.from_dict({**more, "start": str(result.model_path)})
    found = train_run(spec)

    config, parameters = load_model(result.model_path)
    sampler = mixture_sampler(spec, open_shards(spec))
    learner = Learner(config, replace(spec.training, seed=77))
    with torch.no_grad():
        for name, parameter in learner.model.named_parameters():
            parameter.copy_(parameters[name])
    peak = json.loads((result.model_path / "training.json").read_text())["learning_rate"]
    for step in range(10):
        learner.learn(sampler.batch(step)[None], [peak * (1 - 0.95 * step / 9)])
    _, trained = load_model(found.model_path)
    for name, parameter in learner.model.named_parameters():
        torch.testing.assert_close(trained[name], parameter.detach(), rtol=0, atol=1e-7)
    assert found.final["held-out/code:web"] < result.final["held-out/code:web"] + 0.05


def test_a_given_rate_is_taken_and_a_given_warm_up_kept(first: tuple[dict, RunResult]) -> None:
    order, result = first
    started = {**order, "start": str(result.model_path)}
    assert RunSpec.from_dict(started).training.warmup_fraction == 0.0
    assert RunSpec.from_dict(order).training.warmup_fraction == 0.1
    warm = with_training(started, warmup_fraction=0.5, learning_rate=1e-3, tokens=2_560)
    rates: list[float] = []
    original = Learner.learn

    def learn(self: Learner, batches: np.ndarray, own: list[float]) -> Learned:
        rates.extend(own)
        return original(self, batches, own)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "learn", learn)
        train(warm, directory=order["directory"] + "-warm")
    assert np.argmax(rates) in (4, 5)
    assert max(rates) == pytest.approx(1e-3)


def test_killed_and_started_again_it_gives_the_same_numbers(first: tuple[dict, RunResult]) -> None:
    order, result = first
    started = with_training({**order, "start": str(result.model_path)}, tokens=5_120, seed=4)
    expected = train(started, directory=order["directory"] + "-whole")
    broken = {**started, "directory": order["directory"] + "-broken", "checkpoint_seconds": 0.0}
    original = Learner.learn

    def learn(self: Learner, *batch: Any) -> Learned:
        if self.optimizer.steps == 7:
            raise Stopped
        return original(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy_models.training.wave.CHECKPOINT_SHARE", 1e9)
        patch.setattr(Learner, "learn", learn)
        with pytest.raises(Stopped):
            train(broken)
    assert numbers(train(broken)) == numbers(expected)


def test_every_member_of_a_stack_starts_from_it(first: tuple[dict, RunResult]) -> None:
    order, result = first
    started = with_training({**order, "start": str(result.model_path)}, tokens=2_560)
    specs = [
        RunSpec.from_dict(
            {**with_training(started, seed=seed), "directory": f"{order['directory']}-member-{seed}"}
        )
        for seed in (1, 2)
    ]
    for found, spec in zip(train_wave(specs, WaveOptions("stacked")), specs, strict=True):
        assert isinstance(found, RunResult)
        alone = train_run(replace(spec, directory=spec.directory.with_name(spec.directory.name + "-alone")))
        assert found.final == pytest.approx(alone.final, rel=1e-5)
        assert (found.model_path / "training.json").read_text() == (
            alone.model_path / "training.json"
        ).read_text()


def test_a_hugging_face_folder_is_gone_on_from_with_its_own_shape_and_vocabulary(
    spec_json: dict, published: Path
) -> None:
    del spec_json["size"]
    order = with_training({**spec_json, "start": str(published)}, tokens=2_560, learning_rate=1e-3)
    spec = RunSpec.from_dict(order)
    assert isinstance(spec.model, Architecture)
    assert (spec.model.name, spec.model.vocabulary_size) == ("llama", 576)
    assert spec.starting is not None
    state = starting_state(spec.starting, spec.model)
    for name, tensor in load_file(published / "model.safetensors").items():
        assert torch.equal(state[f"model.{name}"], tensor)
    result = train_run(spec)
    assert json.loads((result.model_path / "config.json").read_text())["vocab_size"] == 576
    again = train({**order, "start": str(result.model_path)}, directory=spec_json["directory"] + "-on")
    assert json.loads((again.model_path / "training.json").read_text())["tokens"] == 2 * 2_560
    for path in (result.model_path, again.model_path):
        AutoModelForCausalLM.from_pretrained(path, local_files_only=True)


def test_experts_and_tied_tables_come_back_from_whole_and_divided_folders(tmp_path: Path) -> None:
    for family in ("olmo2", "olmoe"):
        shape = Architecture(checked_architecture(FAMILIES[family]), 512)
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(configuration(shape), dtype=torch.float32)
        for size in ("1GB", "60KB"):
            folder = tmp_path / f"{family}-{size}"
            model.save_pretrained(folder, max_shard_size=size)
            start = read_start(folder)
            assert (len(start.files) > 2) == (size == "60KB")
            state = starting_state(start, shape)
            for name, parameter in model.named_parameters():
                assert torch.equal(state[f"model.{name}"], parameter), name


def test_a_published_folders_dropout_and_unknown_settings_are_left_out(published: Path) -> None:
    content = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps({**content, "attention_dropout": 0.1, "new_here": 1}))
    shape = read_start(published).shape
    assert isinstance(shape, Architecture)
    assert not {"attention_dropout", "new_here"} & set(shape.settings)
    assert configuration(shape).attention_dropout == 0.0


def test_a_folder_that_does_not_know_its_rate_asks_for_one(spec_json: dict, published: Path) -> None:
    del spec_json["size"]
    with pytest.raises(InvalidSpec, match="give learning_rate") as caught:
        train({**spec_json, "start": str(published)})
    assert caught.value.field == "learning_rate"


def test_the_fingerprint_is_of_the_checkpoints_content_and_not_of_its_place(
    first: tuple[dict, RunResult], tmp_path: Path
) -> None:
    order, result = first
    copied = Path(shutil.copytree(result.model_path, tmp_path / "copied"))

    def fingerprint(start: Path | None) -> str:
        return RunSpec.from_dict({**order, "start": None if start is None else str(start)}).fingerprint()

    before = fingerprint(copied)
    assert before == fingerprint(result.model_path) != fingerprint(None)
    tensors = load_file(copied / "model.safetensors")
    tensors["final_norm"][0] += 1
    save_file(tensors, copied / "model.safetensors")
    assert fingerprint(copied) != before


Spoil = Callable[[Path], Any]


def tensors(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Rewrite a folder's tensors, changed."""

    def spoil(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors", {"format": "pt"})

    return spoil


def setting(file: str, **changes: Any) -> Spoil:
    """Rewrite one of a folder's JSON files, changed."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, **changes}))

    return spoil


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def torn(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"torn")


def whole(folder: Path) -> None:
    """As it is."""


class Refusal(NamedTuple):
    """What a folder that was spoiled, or asked to be something else, is refused for."""

    field: str
    reason: str
    spoil: Spoil
    asked: dict[str, Any]


CONFIG, LLAMA = "config.json", FAMILIES["llama"]
OURS = [
    ("start", "no config.json", shutil.rmtree, {}),
    ("size", r"layers is 2 there and 4 here, width is 64", whole, {"size": "nano-2M"}),
    ("start", "is a pickle", pickled, {}),
    ("start", "misses 1 tensors: final_norm", tensors(lambda t: t.pop("final_norm")), {}),
    ("start", "beyond its model, 1 tensors: extra", tensors(lambda t: t.update(extra=torch.ones(1))), {}),
    ("start", "tensor embedding is", setting(CONFIG, width=96, heads=3), {}),
    ("start", "not readable as safetensors", torn, {}),
    ("start", "another tokenizer", setting("training.json", tokenizer="another"), {}),
    ("architecture", "it is our own decoder", whole, {"size": None, "architecture": LLAMA}),
]
PUBLISHED = [
    ("start", "it is another's", setting(CONFIG, vocab_size=4096), {}),
    ("start", "knows 400 tokens", setting(CONFIG, vocab_size=400), {}),
    ("start", "never run", setting(CONFIG, auto_map={"AutoConfig": "x.Y"}), {}),
    ("start", "tensor .* the model's is", setting(CONFIG, hidden_size=16), {}),
    ("start", "misses 1 tensors: model.norm.weight", tensors(lambda t: t.pop("model.norm.weight")), {}),
    (
        "architecture.intermediate_size",
        "is 48 there and 64 here",
        whole,
        {"architecture": {**LLAMA, "intermediate_size": 64}},
    ),
    ("size", "transformers' llama", whole, {"size": "nano-0.1M"}),
]


@pytest.mark.parametrize(
    ("ours", "refusal"),
    [*((True, Refusal(*case)) for case in OURS), *((False, Refusal(*case)) for case in PUBLISHED)],
    ids=[case[1] for case in (*OURS, *PUBLISHED)],
)
def test_what_cannot_be_started_from_is_refused_before_training(
    first: tuple[dict, RunResult],
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ours: bool,
    refusal: Refusal,
) -> None:
    monkeypatch.setattr(Learner, "learn", lambda *_: pytest.fail("trained"))
    order, result = first
    folder = Path(shutil.copytree(result.model_path if ours else published, tmp_path / "start"))
    refusal.spoil(folder)
    asked = {**order, "start": str(folder), "directory": str(tmp_path / "run")}
    if not ours:
        asked |= {"size": None, "training": {**order["training"], "learning_rate": 1e-3}}
    with pytest.raises(UnfitStart, match=refusal.reason) as caught:
        train({**asked, **refusal.asked})
    assert caught.value.field == refusal.field
    assert not caught.value.retryable
    assert not (tmp_path / "run").exists()


def test_our_decoders_tensors_are_known_without_torch() -> None:
    for name in ("nano-0.1M", "olmo-1M"):
        for tied in (True, False):
            config = replace(size_named(name, 100), tied_embeddings=tied)
            made = {name: tuple(p.shape) for name, p in Decoder(config).named_parameters()}
            assert decoder_shapes(config) == made


def test_reading_a_folder_imports_no_torch(published: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from proxy_models.families.start import read_start; "
        "import proxy_models.training.run_spec; print(read_start(Path(sys.argv[1])).shape.name); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(published)], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "llama"), done.stderr


def test_what_the_shards_cannot_give_is_refused_before_training(
    spec_json: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "learn", lambda *_: pytest.fail("trained"))
    long = with_training(spec_json, sequence_length=2_000_000, tokens=8_000_000, batch_rows=1)
    cases: list[tuple[type[ProxyError], str, dict]] = [
        (TooLittleText, "no row of 2000001 training tokens", long),
        (InvalidSpec, "smaller than the 512 ids", {**spec_json, "vocabulary_size": 511}),
    ]
    for error, reason, order in cases:
        with pytest.raises(error, match=reason):
            train(order)


def test_a_larger_vocabulary_than_the_shards_is_only_unused_rows(spec_json: dict) -> None:
    """Ids come from the shards as integers of 64 bits, whatever dtype they are stored in."""
    spec = RunSpec.from_dict({**spec_json, "vocabulary_size": 70_000})
    shards = open_shards(spec)
    assert {shard.tokens.dtype for shard in shards.values()} == {np.dtype("uint16")}
    assert mixture_sampler(spec, shards).batch(0).dtype == np.int64
