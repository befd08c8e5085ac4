import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from proxy_models.config import SIZES, ModelConfig, size_named
from proxy_models.errors import InvalidSpec, UnknownSize
from proxy_models.model.model import Decoder, head_loss, rms_norm, rotate, rotation_table
from proxy_models.model.products import has_onednn, linear
from proxy_models.training.stacked_optimizer import AdamW

SMALL = ModelConfig("small", 2, 32, 2, 48, 1e-2, vocabulary_size=50)


def draw(*shape: int, seed: int = 0, grad: bool = True) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_(grad)


def assert_same_gradients(ours: Tensor, reference: Tensor, inputs: list[Tensor], seed: int = 9) -> None:
    """Both outputs, and the gradients of a random projection of them, agree."""
    torch.testing.assert_close(ours, reference, rtol=2e-5, atol=2e-5)
    direction = draw(*reference.shape, seed=seed, grad=False) if reference.ndim else torch.tensor(1.7)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, direction),
        torch.autograd.grad(reference, inputs, direction),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=3e-5)


LIBRARIES = [
    pytest.param(True, marks=pytest.mark.skipif(not has_onednn(), reason="this PyTorch has no oneDNN")),
    False,
]
"""Products by oneDNN and by PyTorch's own library: a processor trains with one, but both have to be right."""


@pytest.mark.parametrize("onednn", LIBRARIES)
@pytest.mark.parametrize(("inner", "outer"), [(8, 24), (24, 8), (16, 16)])
def test_linear_agrees_with_pytorch(
    monkeypatch: pytest.MonkeyPatch, onednn: bool, inner: int, outer: int
) -> None:
    monkeypatch.setattr("proxy_models.model.products.ONEDNN", onednn)
    inputs, weight = draw(3, 5, inner), draw(outer, inner, seed=1)
    assert_same_gradients(linear(inputs, weight), functional.linear(inputs, weight), [inputs, weight])


@pytest.mark.parametrize("scale_shape", [(12,), (2, 1, 12)])
def test_rms_norm_agrees_with_autograd(scale_shape: tuple[int, ...]) -> None:
    inputs, scale = draw(3, 2, 4, 12), draw(*scale_shape, seed=1)
    reference = inputs / (inputs.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale
    assert_same_gradients(rms_norm(inputs, scale), reference, [inputs, scale])


@pytest.mark.parametrize("onednn", LIBRARIES)
@pytest.mark.parametrize("block", [7 * 40, 10**6])
def test_head_loss_agrees_with_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, onednn: bool, block: int
) -> None:
    monkeypatch.setattr("proxy_models.model.products.ONEDNN", onednn)
    monkeypatch.setattr("proxy_models.model.model.BLOCK_LOGITS", block)
    hidden, weight = draw(30, 8), draw(40, 8, seed=1)
    targets = torch.randint(40, (30,), generator=torch.Generator().manual_seed(2))
    reference = functional.cross_entropy(hidden @ weight.t(), targets)
    assert_same_gradients(head_loss(hidden, weight, targets), reference, [hidden, weight])


def test_head_loss_stays_finite_where_a_probability_underflows() -> None:
    hidden, weight = torch.tensor([[1000.0]], requires_grad=True), torch.tensor([[1.0], [0.0]])
    loss = head_loss(hidden, weight, torch.tensor([1]))
    loss.backward()
    assert 87 < loss.item() < 88
    assert hidden.grad is not None
    assert hidden.grad.item() == 1.0


def test_the_whole_model_agrees_with_a_plain_one() -> None:
    """The same formula written out with matrices, complex rotations and a mask, in float64."""
    model = Decoder(SMALL, seed=4)
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            model.logits(model(tokens)).double(), plain_logits(model, tokens), rtol=0, atol=1e-4
        )


def plain_logits(model: Decoder, tokens: Tensor) -> Tensor:
    config = model.config
    weights = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    length, size = tokens.shape[1], config.head_size
    angle = torch.outer(
        torch.arange(length).double(), 10_000.0 ** (-torch.arange(size // 2).double() / (size // 2))
    )
    rotation = torch.polar(torch.ones_like(angle), angle)  # (T, D / 2)

    def norm(x: Tensor, scale: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale

    def turn(x: Tensor) -> Tensor:
        pairs = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * rotation
        return torch.cat((pairs.real, pairs.imag), -1)

    x = weights["embedding"][tokens]
    for layer in range(config.layers):
        block = {
            name: weights[f"blocks.{layer}.{name}"] for name, _ in model.blocks[layer].named_parameters()
        }
        mixed = norm(x, block["attention_norm"]) @ block["query_key_value"].T
        query, key, value = (
            part.view(*part.shape[:2], config.heads, size).transpose(1, 2) for part in mixed.chunk(3, -1)
        )
        query, key = turn(norm(query, block["query_norm"])), turn(norm(key, block["key_norm"]))
        scores = query @ key.transpose(-1, -2) / math.sqrt(size)
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
        attended = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + attended @ block["attention_out"].T
        gate, up = (norm(x, block["ffn_norm"]) @ block["gate_up"].T).chunk(2, -1)
        x = x + (gate * gate.sigmoid() * up) @ block["ffn_out"].T
    return norm(x, weights["final_norm"]) @ weights["embedding"].T


def test_the_future_does_not_change_the_past() -> None:
    model = Decoder(SMALL, seed=1)
    tokens = torch.randint(50, (1, 20), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 50
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_rotation_depends_on_the_distance_only_and_keeps_lengths() -> None:
    table = rotation_table(40, 16, 10_000.0)
    query, key = draw(16, grad=False), draw(16, seed=1, grad=False)
    queries, keys = (rotate(x.expand(1, 40, 1, 16), table)[0, :, 0] for x in (query, key))
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(40))
    scores = queries @ keys.T
    for distance in (0, 3, 17):
        torch.testing.assert_close(
            scores.diagonal(-distance),
            scores.diagonal(-distance)[:1].expand(40 - distance),
            rtol=0,
            atol=2e-5,
        )
    assert (scores[20, 20] - scores[20, 3]).abs() > 1e-3


def test_initialization_depends_on_seed_and_size_alone() -> None:
    torch.manual_seed(1)
    first = Decoder(SMALL, seed=2).state_dict()
    torch.manual_seed(2)
    second, reseeded = Decoder(SMALL, seed=2).state_dict(), Decoder(SMALL, seed=3).state_dict()
    wider = Decoder(SMALL.with_vocabulary(60), seed=2).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        if tensor.ndim == 2:
            assert not torch.equal(tensor, reseeded[name])
        if name != "embedding":
            assert torch.equal(tensor, wider[name])


def test_an_untied_head_is_trained() -> None:
    model = Decoder(ModelConfig("untied", 1, 16, 1, 16, 1e-2, vocabulary_size=30, tied_embeddings=False))
    assert sum(p.numel() for p in model.parameters()) == model.config.parameters
    tokens = torch.randint(30, (2, 6), generator=torch.Generator().manual_seed(0))
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_sizes_weigh_what_they_say() -> None:
    for name, config in SIZES.items():
        with torch.device("meta"):
            count = sum(p.numel() for p in Decoder(config).parameters())
        assert count == config.parameters
        stated = float(name.split("-")[1].removesuffix("M")) * 1e6
        assert config.non_embedding_parameters == pytest.approx(stated, rel=0.12)
    weights = [config.non_embedding_parameters for config in SIZES.values()]
    assert all(small < large for small, large in itertools.pairwise(weights))
    assert weights[0] < 110_000
    assert weights[-1] > 55e6


def test_unknown_sizes_and_impossible_shapes_are_refused() -> None:
    with pytest.raises(UnknownSize, match=r"'huge'.*nano-0\.1M"):
        size_named("huge")
    with pytest.raises(InvalidSpec, match="heads"):
        ModelConfig("odd", 1, 30, 4, 16, 1e-2)


def test_adamw_and_clipping_agree_with_pytorch() -> None:
    ours, theirs = Decoder(SMALL, 1), Decoder(SMALL, 1)
    mine = AdamW(ours.named_parameters(), weight_decay=0.1)
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        foreach=False,
    )
    for step in range(5):
        tokens = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(step))
        for model in (ours, theirs):
            model.zero_grad()
            model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        norm = float(mine.norm())
        mine.clip(0.5, norm)
        assert norm == pytest.approx(
            float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)), rel=1e-5
        )
        assert norm > 0.5
        mine.step(1e-2)
        for group in reference.param_groups:
            group["lr"] = 1e-2
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
