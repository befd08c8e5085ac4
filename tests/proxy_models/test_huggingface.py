"""Exported models against `transformers`: the same logits, the same tokens, and generation."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxy_models.config import SIZES, ModelConfig, size_named
from proxy_models.errors import DataMissing, InvalidSpec
from proxy_models.export import ExportedFile, exported_model, tar_pieces, tar_size, write_folder
from proxy_models.model.model import Decoder
from proxy_models.text.tokenizer import load_tokenizer
from proxy_models.training.run_record import save_model
from tests.proxy_models.conftest import Pool

LENGTH = 48


def trained_like(config: ModelConfig) -> Decoder:
    """A model whose every parameter was moved off its first value, norms too, as training does."""
    model = Decoder(config, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator) * parameter.abs().mean())
    return model


def export(model: Decoder, pool: Pool, place: Path) -> Path:
    save_model(place / "model", model.config, dict(model.named_parameters()))
    files = exported_model(place / "model", str(pool.tokenizer_path), LENGTH)
    write_folder(files, place / "exported")
    return place / "exported"


def logits_of(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(tokens))


SMALL = ModelConfig("odd", 3, 96, 6, 80, 1e-2, vocabulary_size=512, tied_embeddings=False, rope_base=500.0)
CONFIGS = [
    SIZES["nano-0.1M"].with_vocabulary(512),
    SIZES["nano-1M"].with_vocabulary(512),
    SIZES["nano-4M"].with_vocabulary(512),
    size_named("olmo-1M", 512),  # heads wider than width / heads
    size_named("regmix-1M", 512),
    SMALL,
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_transformers_gives_the_same_logits(config: ModelConfig, pool: Pool, tmp_path: Path) -> None:
    model = trained_like(config)
    folder = export(model, pool, tmp_path)
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 512, (3, LENGTH)))
    with torch.no_grad():
        theirs = loaded.eval()(tokens).logits
    ours = logits_of(model, tokens)
    assert ours.std() > 0.1, "logits that are all alike would agree by themselves"
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    assert loaded.num_parameters() == config.parameters


def test_generation_goes_on_with_the_likeliest_token(pool: Pool, tmp_path: Path) -> None:
    model = trained_like(SMALL)
    folder = export(model, pool, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = torch.tensor([[pool.tokenizer.end_of_text, *pool.tokenizer.encode("def f(x):")]])
    expected = prompt
    for _ in range(12):
        following = logits_of(model, expected)[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat((expected, following), 1)
        if following.item() == pool.tokenizer.end_of_text:
            break
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    mask = torch.ones_like(prompt)
    asked = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": tokenizer.eos_token_id}
    made = loaded.generate(prompt, attention_mask=mask, **asked)  # pyright: ignore[reportAttributeAccessIssue]
    assert made.tolist() == expected.tolist()


def test_the_tokenizer_gives_the_same_ids_and_the_text_back(pool: Pool, tmp_path: Path) -> None:
    folder = export(trained_like(CONFIGS[0]), pool, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ("def f(x):\n    return x\n", "naïve ☃  two  spaces ", " leading", "\t\n ."):
        ids = tokenizer(text)["input_ids"]
        assert ids == pool.tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == pool.tokenizer.end_of_text
    assert tokenizer.model_max_length == LENGTH
    assert load_tokenizer(folder).encode("x = 1") == pool.tokenizer.encode("x = 1")


def test_a_folder_of_transformers_is_taken_as_it_is(pool: Pool, tmp_path: Path) -> None:
    first = export(trained_like(CONFIGS[0]), pool, tmp_path)
    own = {path.name: path.read_bytes() for path in first.iterdir()}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (first / name).unlink()
    again = exported_model(first, str(pool.tokenizer_path), LENGTH)
    assert {file.name: b"".join(file.pieces()) for file in again} == own


def test_a_tokenizer_folder_is_copied(pool: Pool, tmp_path: Path) -> None:
    first = export(trained_like(CONFIGS[0]), pool, tmp_path)
    files = {file.name: file for file in exported_model(tmp_path / "model", str(first), LENGTH)}
    assert b"".join(files["tokenizer.json"].pieces()) == (first / "tokenizer.json").read_bytes()
    config = json.loads(b"".join(files["config.json"].pieces()))
    assert config["eos_token_id"] == pool.tokenizer.end_of_text


def test_the_archive_is_the_folder(pool: Pool, tmp_path: Path) -> None:
    folder = export(trained_like(CONFIGS[0]), pool, tmp_path)
    files = exported_model(tmp_path / "model", str(pool.tokenizer_path), LENGTH)
    archive = b"".join(tar_pieces(files, "run"))
    assert len(archive) == tar_size(files, "run")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        content = {one.name: tar.extractfile(one).read() for one in tar}  # pyright: ignore[reportOptionalMemberAccess]
    assert content == {f"run/{path.name}": path.read_bytes() for path in folder.iterdir()}
    assert all(len(piece) <= 2**20 for file in files for piece in file.pieces())


def test_nothing_is_written_over_and_nothing_is_left_half(pool: Pool, tmp_path: Path) -> None:
    folder = export(trained_like(CONFIGS[0]), pool, tmp_path)
    files = exported_model(tmp_path / "model", str(pool.tokenizer_path), LENGTH)
    with pytest.raises(InvalidSpec, match="exists already"):
        write_folder(files, folder)
    broken = ExportedFile("late", 5, lambda: (_ for _ in ()).throw(DataMissing("late", "is gone")))
    with pytest.raises(DataMissing):
        write_folder([*files, broken], tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported", "model"]


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "cut", "garbage"])
def test_a_model_that_is_gone_or_damaged_is_named(damage: str, pool: Pool, tmp_path: Path) -> None:
    model = trained_like(CONFIGS[0])
    save_model(tmp_path / "model", model.config, dict(model.named_parameters()))
    weights = tmp_path / "model" / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "garbage":
        weights.write_bytes(b"\xff" * 64)
    else:
        (tmp_path / "model" / damage).unlink()
    with pytest.raises(DataMissing, match="model"):
        exported_model(tmp_path / "model", str(pool.tokenizer_path), LENGTH)


def test_a_tokenizer_that_is_gone_is_named(pool: Pool, tmp_path: Path) -> None:
    model = trained_like(CONFIGS[0])
    save_model(tmp_path / "model", model.config, dict(model.named_parameters()))
    with pytest.raises(DataMissing, match="gone"):
        exported_model(tmp_path / "model", str(tmp_path / "gone.json"), LENGTH)
