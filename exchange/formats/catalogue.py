"""Every format by name, and a mixture written in one of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from exchange.formats.base import Blend, Format, InvalidExport, Realised
from exchange.formats.hugging_face import Datasets, LlamaFactory
from exchange.formats.levanter import Levanter
from exchange.formats.litdata import LitData
from exchange.formats.megatron import Megatron
from exchange.formats.olmo_core import OlmoCore
from exchange.formats.others import Nanotron, OpenInstruct
from exchange.formats.plain import Csv, Json, Olmix, RegMix, Yaml
from exchange.formats.streaming import Streaming

_ALL: tuple[Format, ...] = (
    *(OlmoCore(), Megatron(), Streaming(), Datasets(), LlamaFactory(), LitData(), Levanter()),
    *(Nanotron(), OpenInstruct(), Olmix(), RegMix(), Csv(), Json(), Yaml()),
)
FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}


@dataclass(frozen=True)
class Export:
    """A mixture in one format: `{file name: content}`, and what the trainer draws of it."""

    files: Mapping[str, str]
    realised: Realised


def format_named(name: str) -> Format:
    """The format. Raises InvalidExport for one that does not exist, listing those that do."""
    if name not in FORMATS:
        raise InvalidExport(f"there is no format {name!r}; there are {', '.join(FORMATS)}", field="format")
    return FORMATS[name]


def export(blend: Blend, name: str) -> Export:
    """Write a mixture in a format.

    Raises:
        InvalidExport: no such format; what it needs and was not told; a mixture it cannot hold, or a cap that its
            rounding would break.
    """
    chosen = format_named(name)
    return Export(chosen.files(blend), chosen.realised(blend))
