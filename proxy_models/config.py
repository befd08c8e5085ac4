"""Named model sizes and the settings of a training run; free of torch, so the service can read it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from proxy_models.errors import InvalidSpec, UnknownSize

DEFAULT_VOCABULARY_SIZE = 4096
DEFAULT_WARMUP = 0.1
FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
"""What the products of training may be computed in (`precision`)."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder: RMSNorm, rotary positions, QK-norm, SwiGLU.

    ``width`` is the residual stream, ``ffn`` the inner width of SwiGLU, ``heads`` divides ``width`` into
    heads of an even size, or each is ``head_width`` wide. ``default_learning_rate`` is the peak rate found best for
    the size on short runs (see `SIZES`).
    """

    name: str
    layers: int
    width: int
    heads: int
    ffn: int
    default_learning_rate: float
    vocabulary_size: int = DEFAULT_VOCABULARY_SIZE
    tied_embeddings: bool = True
    rope_base: float = 10_000.0
    head_width: int | None = None

    def __post_init__(self) -> None:
        if (self.head_width is None and self.width % self.heads) or self.head_size % 2:
            raise InvalidSpec(
                f"width {self.width} does not divide into {self.heads} heads of even size", "heads"
            )
        if self.vocabulary_size < 1:
            raise InvalidSpec(f"vocabulary of {self.vocabulary_size} tokens", "vocabulary_size")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.width // self.heads

    @property
    def attention_width(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_size

    @property
    def non_embedding_parameters(self) -> int:
        """Parameters of the layers and norms: neither the embedding nor an untied head."""
        attention = 4 * self.width * self.attention_width + 2 * self.head_size
        layer = attention + 3 * self.width * self.ffn + 2 * self.width
        return self.layers * layer + self.width

    @property
    def parameters(self) -> int:
        """All parameters, the embedding and an untied head included."""
        tables = 1 if self.tied_embeddings else 2
        return self.non_embedding_parameters + tables * self.vocabulary_size * self.width

    def flops_per_token(self, sequence_length: int) -> int:
        """Training FLOPs per token, the head and attention included: 6 per weight, 6 L T w for causal attention."""
        weights = self.non_embedding_parameters + self.vocabulary_size * self.width
        return 6 * weights + 6 * self.layers * sequence_length * self.attention_width

    def with_vocabulary(self, vocabulary_size: int) -> "ModelConfig":
        """The same shape over another vocabulary."""
        return replace(self, vocabulary_size=vocabulary_size)


SIZES: Mapping[str, ModelConfig] = MappingProxyType(
    {
        size.name: size
        for size in (
            ModelConfig("nano-0.1M", 2, 64, 2, 192, 1.5e-2),
            ModelConfig("nano-0.2M", 2, 96, 3, 256, 1.5e-2),
            ModelConfig("nano-0.5M", 2, 128, 4, 448, 1e-2),
            ModelConfig("nano-1M", 2, 192, 4, 576, 7e-3),
            ModelConfig("nano-2M", 4, 192, 4, 576, 6e-3),
            ModelConfig("nano-4M", 5, 256, 4, 768, 5e-3),
            ModelConfig("mini-8M", 6, 320, 5, 1024, 3e-3),
            ModelConfig("mini-15M", 8, 384, 6, 1088, 2.5e-3),
            ModelConfig("mini-30M", 10, 512, 8, 1280, 2e-3),
            ModelConfig("mini-60M", 12, 640, 10, 1728, 1.5e-3),
        )
    }
)
"""The named sizes, smallest first; the number in a name is its non-embedding parameters, rounded.

The small ones are wide and shallow: on a CPU two wide layers train faster than four narrow ones of the same
weight, and 64 is as narrow as leaves the body a third of the arithmetic beside a 4096-token head.

Learning rates: measured at 0.1M, 0.2M, 0.5M, 1M and 4M on 0.3-0.6M tokens of code and prose in steps of 1024 tokens
(a factor of 1.5 either way cost less than 0.03 BPB), continued towards the larger sizes as about width^-1.
"""


def _published(
    name: str, shape: tuple[int, int, int, int], rope_base: float, head_width: int | None = None
) -> ModelConfig:
    layers, width, heads, ffn = shape
    config = ModelConfig(name, layers, width, heads, ffn, 1.0, rope_base=rope_base, head_width=head_width)
    rate = ladder_learning_rate(config.non_embedding_parameters)
    return replace(config, default_learning_rate=float(f"{rate:.2g}"))


def ladder_learning_rate(non_embedding_parameters: int) -> float:
    """0.0016 (N / 108M)^(-1/3): the peak rate of a size nobody measured, for short runs in small steps.

    The exponent is that of Porian et al. (arXiv 2406.19146), whose 0.0047 OLMo-core's model ladder takes for steps
    of 330,000 tokens at 108M parameters. A third of it is what we measured best at steps of 1024 tokens: within 16%
    of the default of every measured size (`SIZES`).
    """
    return 0.0016 * (non_embedding_parameters / 108e6) ** (-1 / 3)


PUBLISHED_SIZES: Mapping[str, ModelConfig] = MappingProxyType(
    {
        size.name: size
        for size in (
            _published("olmo-1M", (4, 12, 4, 256), 5e5, head_width=4),
            _published("olmo-14M", (4, 128, 8, 512), 5e5),
            _published("olmo-30M", (4, 256, 8, 768), 5e5),
            _published("olmo-60M", (8, 384, 8, 1536), 5e5),
            _published("olmo-190M", (12, 768, 12, 3072), 5e5),
            _published("regmix-1M", (2, 256, 8, 512), 1e4),
        )
    }
)
"""The proxies of published swarms: their layers, width, heads, ffn and rotary base, as our dense decoder.

``olmo-*`` are OLMo-core's ``TransformerConfig.olmo2_1M`` to ``olmo2_190M`` (allenai/OLMo-core,
nn/transformer/config.py; Olmix's proxies are the 30M), whose names count one table of a vocabulary of about 100,000:
with ours they are smaller.
``regmix-1M`` is ``tinyllama_1M`` (sail-sg/regmix, model_training/lit_gpt/config.py; arXiv 2407.01492). Both tie no
tables and normalise elsewhere (OLMo 2 after each sublayer and over all heads' queries, RegMix no queries at all); for
those exactly, give the architecture (`proxy_models.families`).

Learning rates follow `ladder_learning_rate`. OLMo-core's own ladder takes three times as much in its large steps;
RegMix trains at a constant 4e-4 in steps of a million tokens.
"""


def size_named(name: str, vocabulary_size: int = DEFAULT_VOCABULARY_SIZE) -> ModelConfig:
    """The size called ``name`` over ``vocabulary_size`` tokens; raises `UnknownSize` naming the known ones."""
    sizes = {**SIZES, **PUBLISHED_SIZES}
    try:
        return sizes[name].with_vocabulary(vocabulary_size)
    except KeyError:
        raise UnknownSize(name, tuple(sizes)) from None


@dataclass(frozen=True)
class TrainingSettings:
    """How models are trained, as far as it can be chosen; nothing is checked.

    ``tokens`` is the budget, rounded down to whole steps of ``batch_rows * sequence_length`` tokens.
    The rate rises linearly over ``warmup_fraction`` of the steps (None: a tenth, or none of a run that starts from a
    checkpoint) to ``learning_rate`` (None: the default of the size, or what the checkpoint ended with) and falls
    linearly to ``floor_fraction`` of it.
    Rows are cut from documents end to end; ``attend_across_documents`` false keeps attention within a document.
    ``evaluations`` checkpoints, spread over the last tenth of the steps, are evaluated on the tasks.
    ``precision`` is what the products of training are computed in; everything else, and evaluation, is float32.
    """

    tokens: int
    sequence_length: int = 128
    batch_rows: int = 8
    learning_rate: float | None = None
    warmup_fraction: float | None = None
    floor_fraction: float = 0.05
    weight_decay: float = 0.1
    evaluations: int = 3
    attend_across_documents: bool = True
    precision: str = FLOAT32

    @property
    def tokens_per_step(self) -> int:
        """Tokens predicted in one step."""
        return self.batch_rows * self.sequence_length


@dataclass(frozen=True)
class TrainingConfig(TrainingSettings):
    """How one model is trained: the settings, checked, its seed, and ``clip``, which bounds the gradient's norm."""

    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InvalidSpec(
                f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}", "precision"
            )
        if not isinstance(self.attend_across_documents, bool):
            raise InvalidSpec("attend_across_documents is true or false", "attend_across_documents")
        for field in ("tokens", "sequence_length", "batch_rows", "evaluations"):
            if getattr(self, field) < 1:
                raise InvalidSpec(f"{field} must be at least 1, not {getattr(self, field)}", field)
        for field in ("warmup_fraction", "floor_fraction"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 1:
                raise InvalidSpec(f"{field} must lie in [0, 1], not {value}", field)
        rates = {"learning_rate": self.learning_rate, "clip": self.clip}
        for field, value in rates.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidSpec(f"{field} must be positive, not {value}", field)
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InvalidSpec(f"weight_decay must not be negative, not {self.weight_decay}", "weight_decay")
        if self.seed < 0:
            raise InvalidSpec(f"seed must not be negative, not {self.seed}", "seed")
        if self.tokens < self.tokens_per_step:
            raise InvalidSpec(
                f"{self.tokens} tokens are less than one step of {self.tokens_per_step}", "tokens"
            )

    @property
    def steps(self) -> int:
        """Whole steps within the budget."""
        return self.tokens // self.tokens_per_step

    def evaluation_steps(self) -> tuple[int, ...]:
        """The steps (counted from 1) after which tasks are evaluated, the last step always among them.

        Spread over the last tenth of the run; fewer than ``evaluations`` where it has fewer steps.
        """
        if self.evaluations == 1:
            return (self.steps,)
        gap = self.steps / 10 / (self.evaluations - 1)
        steps = {self.steps - round(gap * back) for back in range(self.evaluations)}
        return tuple(sorted(max(1, step) for step in steps))
