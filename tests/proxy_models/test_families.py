"""Models of ``transformers`` are trained as ours are: with the library's own numbers, repeatably, resumed exactly."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from proxy_models.backends import build as build_backend
from proxy_models.config import PUBLISHED_SIZES, SIZES, TrainingConfig, size_named
from proxy_models.errors import InvalidSpec, NotEnoughMemory
from proxy_models.families.architecture import MODEL_TYPES, Architecture, checked_architecture
from proxy_models.families.counting import counted
from proxy_models.families.transformers_model import TransformersModel, configuration
from proxy_models.model.model import Decoder
from proxy_models.training import wave as wave_module
from proxy_models.training.run_record import RunResult
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.step import Learned, Learner, build_model
from proxy_models.training.wave import WaveOptions, train_run, train_wave

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **TINY, "num_key_value_heads": 2},
    "olmo2": {"model_type": "olmo2", **TINY, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "olmoe": {
        "model_type": "olmoe",
        **TINY,
        "num_key_value_heads": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
}


def architecture(family: str, **changes: Any) -> Architecture:
    return Architecture(checked_architecture({**FAMILIES[family], **changes}), 512)


def model_of(family: str, seed: int = 0, **changes: Any) -> TransformersModel:
    model = build_model(
        architecture(family, **changes), TrainingConfig(64, 64, 1, seed=seed), "cpu", torch.float32
    )
    assert isinstance(model, TransformersModel)
    return model


def numbers(result: object) -> dict[str, Any]:
    """Everything but times, memory and place."""
    assert isinstance(result, RunResult), result
    content = result.to_dict()
    for name in ("seconds", "tokens_per_second", "peak_memory_bytes", "model_path"):
        del content[name]
    return content


@pytest.fixture
def family_json(spec_json: dict) -> dict:
    del spec_json["size"]
    training = {**spec_json["training"], "tokens": 8_000, "learning_rate": 1e-2}
    return {**spec_json, "training": training}


class Stopped(Exception):
    """Stands for the end of a process between two steps."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained_resumed_to_the_same_numbers_and_saved_as_the_library_reads_it(
    family: str, family_json: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = {**family_json, "architecture": FAMILIES[family]}
    expected = train_run(RunSpec.from_dict(order))
    assert expected.final["held-out/code:web"] < 0.8 * math.log2(
        512
    )  # of a model that knows nothing, for a byte

    interrupted = {**order, "directory": order["directory"] + "-again", "checkpoint_seconds": 0.0}
    original = Learner.learn

    def learn(self: Learner, *batch: Any) -> Learned:
        if self.optimizer.steps == 11:
            raise Stopped
        return original(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(wave_module, "CHECKPOINT_SHARE", 1e9)
        patch.setattr(Learner, "learn", learn)
        with pytest.raises(Stopped):
            train_run(RunSpec.from_dict(interrupted))
    assert list((Path(interrupted["directory"]) / "checkpoints").iterdir())
    again = train_run(RunSpec.from_dict(interrupted))
    assert numbers(again) == numbers(expected)

    loaded = AutoModelForCausalLM.from_pretrained(again.model_path, local_files_only=True)
    config = json.loads((again.model_path / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"]) == (family, 512)
    assert (again.model_path / "model.safetensors").is_file()
    assert sum(p.numel() for p in loaded.parameters()) == again.parameters
    other = AutoModelForCausalLM.from_pretrained(expected.model_path, local_files_only=True)
    for (name, one), (_, two) in zip(loaded.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_librarys_own_model(family: str) -> None:
    model = model_of(family, seed=5)
    theirs = AutoModelForCausalLM.from_config(configuration(architecture(family)), dtype=torch.float32)
    theirs.load_state_dict(model.inner.state_dict())
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 512, (3, 20)))
    with torch.no_grad():
        assert torch.equal(model.logits(model(tokens)), theirs.eval()(tokens).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_alone_decides_where_a_model_starts_and_no_global_generator_moves(family: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = model_of(family, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    model_of(family, seed=4)
    again, other = model_of(family, seed=3), model_of(family, seed=4)
    pairs = list(zip(first.named_parameters(), again.named_parameters(), strict=True))
    assert all(torch.equal(one, two) for (_, one), (_, two) in pairs)
    moved = zip(first.named_parameters(), other.named_parameters(), strict=True)
    assert any(not torch.equal(one, two) for (_, one), (_, two) in moved)


def test_the_loss_of_a_dense_family_is_the_cross_entropy() -> None:
    model = model_of("llama")
    tokens = torch.from_numpy(np.random.default_rng(1).integers(0, 512, (2, 17)))
    probabilities = torch.softmax(model(tokens[:, :-1]).double(), dim=-1)
    gold = probabilities.gather(2, tokens[:, 1:, None]).squeeze(2)
    assert model.loss(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(
        -gold.log().mean().item(), rel=1e-6
    )


def test_olmoe_adds_the_load_balancing_loss_and_the_z_loss_of_its_papers() -> None:
    balance, z_loss = 0.03, 0.02
    model = model_of("olmoe", router_aux_loss_coef=balance, router_z_loss_coef=z_loss)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.mul_(100)  # far from uniform, where all of this would be constant
    tokens = torch.from_numpy(np.random.default_rng(2).integers(0, 512, (2, 17)))
    seen: list[np.ndarray] = []
    handles = [
        layer.mlp.register_forward_pre_hook(
            lambda module, inputs: seen.append(
                (inputs[0].flatten(0, 1) @ module.gate.weight.T).detach().double().numpy()
            )
        )
        for layer in model.inner.model.layers  # pyright: ignore
    ]
    loss = model.loss(tokens[:, :-1], tokens[:, 1:]).item()
    for handle in handles:
        handle.remove()
    logits = np.concatenate(seen)  # (layers x tokens, E)
    assert logits.shape == (2 * 32, 4)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    chosen = np.argsort(-logits, axis=1)[:, :2]
    fraction = np.bincount(chosen.ravel(), minlength=4) / len(logits)  # Switch (2101.03961), equations 4 to 6
    expected_balance = 4 * float(fraction @ probabilities.mean(0))
    expected_z = float(np.mean(np.log(np.exp(logits).sum(1)) ** 2))  # ST-MoE (2202.08906), equation 5
    with torch.no_grad():
        plain = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).item()
    assert loss - plain == pytest.approx(balance * expected_balance + z_loss * expected_z, rel=1e-4)
    assert expected_balance > 2.003  # 2, its value where experts are chosen alike, would be refused above
    assert expected_z > 0.1


def test_olmoe_weighs_them_as_published_where_nothing_else_is_said() -> None:
    model = model_of("olmoe")
    assert (model.balance, model.z_loss) == (0.01, 0.001)
    assert model_of("llama").asked == {}


def test_parameters_are_counted_by_hand() -> None:
    width, ffn, layers, vocabulary = 32, 48, 2, 512
    attention = 4 * width * width
    norms = 2 * width
    llama = counted(architecture("llama"))
    body = (
        layers * (attention - 2 * width * width // 2 + 3 * width * ffn + norms) + width
    )  # 2 of 4 key-value heads
    assert llama.non_embedding_parameters == llama.active_parameters == body
    assert llama.parameters == body + 2 * vocabulary * width
    assert llama.flops_per_token(64) == 6 * (body + vocabulary * width) + 6 * layers * 64 * width
    olmo2 = counted(architecture("olmo2"))
    assert olmo2.parameters == olmo2.non_embedding_parameters + vocabulary * width  # tied
    olmoe = counted(architecture("olmoe"))
    expert, router = 3 * width * ffn, 4 * width
    rest = layers * (attention + 2 * width + router + norms) + width  # query and key norms over all heads
    assert olmoe.non_embedding_parameters == rest + layers * 4 * expert
    assert olmoe.active_parameters == rest + layers * 2 * expert
    ours = size_named("nano-1M")
    assert counted(ours).flops_per_token(128) == ours.flops_per_token(128)


def test_published_sizes_have_their_published_counts() -> None:
    """OLMo-core names its sizes by the parameters with one table of its 100,278 tokens."""
    for name in ("olmo-1M", "olmo-14M", "olmo-30M", "olmo-60M", "olmo-190M"):
        size = PUBLISHED_SIZES[name]
        said = float(name.removeprefix("olmo-").removesuffix("M"))
        assert size.with_vocabulary(100_278).parameters == pytest.approx(said * 1e6, rel=0.25)
    assert PUBLISHED_SIZES["regmix-1M"].non_embedding_parameters == pytest.approx(1.3e6, rel=0.05)
    for size in PUBLISHED_SIZES.values():
        small = size.with_vocabulary(64)
        if small.parameters < 2e7:
            assert sum(p.numel() for p in Decoder(small).parameters()) == small.parameters
    assert not set(SIZES) & set(PUBLISHED_SIZES)


def test_the_narrowest_published_size_trains_alone_and_stacked_alike() -> None:
    """Its heads are together wider than its residual stream."""
    model = PUBLISHED_SIZES["olmo-1M"].with_vocabulary(64)
    training = TrainingConfig(tokens=4 * 32, sequence_length=16, batch_rows=2, seed=1)
    batches = np.random.default_rng(0).integers(0, 64, (4, 1, 2, 17))
    alone = Learner(model, training)
    stack = build_backend("stacked", model, [training])
    for batch in batches:
        value = alone.learn(batch, [1e-2]).losses[0]
        assert stack.learn(batch, [1e-2]).losses[0] == pytest.approx(value, rel=1e-5)


def test_stacked_backends_refuse_a_family_by_name(family_json: dict) -> None:
    spec = RunSpec.from_dict({**family_json, "architecture": FAMILIES["llama"]})
    with pytest.raises(InvalidSpec, match="train llama with 'one-by-one'") as caught:
        train_wave([spec], WaveOptions("stacked"))
    assert caught.value.field == "backend"


def test_one_by_one_trains_a_wave_of_a_family_as_alone(family_json: dict) -> None:
    order = {**family_json, "architecture": FAMILIES["olmoe"]}
    short = {**order, "training": {**order["training"], "tokens": 1_024}}
    specs = [RunSpec.from_dict({**short, "directory": f"{short['directory']}-{index}"}) for index in range(2)]
    results = train_wave(specs[:1], WaveOptions("one-by-one"))
    assert isinstance(results[0], RunResult)
    assert numbers(results[0]) == numbers(train_run(specs[1]))


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("architecture.model_type", "no causal language model", {"model_type": "bert"}),
    ("architecture.hiden_size", "did you mean hidden_size", {"hiden_size": 32}),
    ("architecture.hidden_size", "whole number", {"hidden_size": "wide"}),
    ("architecture.num_attention_heads", "does not divide", {"num_attention_heads": 5}),
    ("architecture.num_key_value_heads", "does not divide", {"num_key_value_heads": 3}),
    ("architecture.attention_dropout", "must be 0", {"attention_dropout": 0.1}),
    ("architecture.auto_map", "never run", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
    ("architecture.quantization_config", "cannot be trained", {"quantization_config": {}}),
    ("architecture.num_hidden_layers", "from 1 to 1024", {"num_hidden_layers": 10**9}),
    ("architecture.max_position_embeddings", "below the sequence_length", {"max_position_embeddings": 32}),
    ("architecture", "no llama can be built", {"hidden_act": "no_such_activation"}),
]


@pytest.mark.parametrize(("field", "reason", "changes"), REFUSED)
def test_a_bad_architecture_is_refused_by_field_before_training(
    field: str, reason: str, changes: dict[str, Any], family_json: dict
) -> None:
    order = {**family_json, "architecture": {**FAMILIES["llama"], **changes}}
    with pytest.raises(InvalidSpec, match=reason) as caught:
        train_run(RunSpec.from_dict(order))
    assert caught.value.field == field
    assert not Path(family_json["directory"]).exists()


def test_a_size_left_out_is_not_the_librarys_seven_billion() -> None:
    settings = copy.copy(FAMILIES["llama"])
    del settings["num_hidden_layers"]
    with pytest.raises(InvalidSpec, match="is missing") as caught:
        checked_architecture(settings)
    assert caught.value.field == "architecture.num_hidden_layers"


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_built() -> None:
    huge = architecture(
        "llama", hidden_size=65_536, intermediate_size=2**19, num_hidden_layers=64, num_attention_heads=64
    )
    with pytest.raises(NotEnoughMemory, match="choose a smaller size"):
        build_model(huge, TrainingConfig(64, 64, 1), "cpu", torch.float32)


def test_one_model_is_asked_for_and_only_one(family_json: dict) -> None:
    with pytest.raises(InvalidSpec, match="size is missing"):
        RunSpec.from_dict(family_json)
    with pytest.raises(InvalidSpec, match="not both"):
        RunSpec.from_dict({**family_json, "size": "nano-0.1M", "architecture": FAMILIES["llama"]})


def test_an_order_with_an_architecture_survives_json_and_has_its_own_fingerprint(family_json: dict) -> None:
    specs = {
        name: RunSpec.from_dict({**family_json, "architecture": settings})
        for name, settings in FAMILIES.items()
    }
    for spec in specs.values():
        again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert again.fingerprint() == spec.fingerprint()
    assert len({spec.fingerprint() for spec in specs.values()}) == len(specs)


def test_the_list_of_families_is_of_the_installed_library() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = set(json.loads(MODEL_TYPES.read_text())["types"])
    assert names <= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert {"llama", "olmo2", "olmo3", "olmoe", "qwen3", "gpt_neox", "gpt2", "mixtral"} <= names
