"""A model of either kind from its shape."""

import torch

from proxy_models.config import ModelConfig
from proxy_models.families.architecture import Architecture
from proxy_models.language_model import LanguageModel
from proxy_models.model import Decoder

Shape = ModelConfig | Architecture


def build_model(
    shape: Shape, seed: int, sequence_length: int, device: str, dtype: torch.dtype
) -> LanguageModel:
    """The model of the shape on the device, initialised from ``seed`` and the shape alone.

    Raises `InvalidSpec`: an architecture ``transformers`` cannot build, or one too short for ``sequence_length``.
    """
    if isinstance(shape, ModelConfig):
        return Decoder(shape, seed).to(device, dtype)
    # seconds to import, and needed for these only
    from proxy_models.families.transformers_model import TransformersModel, build, check_length

    check_length(shape, sequence_length)
    return TransformersModel(shape, build(shape, seed).to(device, dtype))
