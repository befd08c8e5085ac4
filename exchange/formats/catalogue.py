"""Every format by name, and a mixture written in one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exchange.formats.base import Blend, Format, InvalidExport, Realised
from exchange.formats.hugging_face import Datasets, LlamaFactory
from exchange.formats.levanter import Levanter
from exchange.formats.litdata import LitData
from exchange.formats.megatron import Megatron
from exchange.formats.olmo_core import OlmoCore
from exchange.formats.others import Nanotron, OpenInstruct, Torchtitan
from exchange.formats.plain import Csv, Json, Olmix, RegMix, Yaml
from exchange.formats.rows import Axolotl, Streaming

_ALL: tuple[Format, ...] = (
    *(OlmoCore(), Megatron(), Streaming(), Datasets(), LlamaFactory(), LitData(), Levanter()),
    *(Axolotl(), Nanotron(), OpenInstruct(), Torchtitan(), Olmix(), RegMix(), Csv(), Json(), Yaml()),
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


def export(mixture: Blend | Mapping[str, float], name: str, **run: Any) -> Export:
    """Write a mixture in a format.

        made = mixwright.export({"web": 0.75, "code": 0.25}, "olmo-core", path="/data/{domain}/*.npy",
                                tokens={"web": 6e9, "code": 2e9}, target_tokens=10**9)
        made.files["sources.yaml"], made.realised.shares

    Args:
        mixture: a blend, or `{domain: weight}`.
        name: of the format (`FORMATS`).
        run: with weights, what `Blend.of` takes beside them.

    Raises:
        InvalidExport: no such format; what it needs and was not told; a mixture it cannot hold, or a cap that its
            rounding would break.
    """
    chosen = format_named(name)
    blend = mixture if isinstance(mixture, Blend) else Blend.of(mixture, **run)
    return Export(chosen.files(blend), chosen.realised(blend))


def write_files(files: Mapping[str, str], directory: Path) -> None:
    """Write an export's files into a directory, made where there is none; of a schedule some lie in folders."""
    for name, content in files.items():
        path = directory.joinpath(*[part for part in name.split("/") if part not in ("", ".", "..")])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
