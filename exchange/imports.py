"""What people have, as a domain set: configurations of Olmix and RegMix, blends, mixes of OLMo-core, open pools.

| given | domains are | files, tokens, weights |
|---|---|---|
| Olmix, generation or launch YAML | the leaves of `data.sources` | `paths`, `priors.token_counts`, `mix` |
| Olmix, fit YAML | the names of `priors.token_counts` | tokens; `constraints` become the target and the cap |
| RegMix, YAML | the names under `train` | weights |
| RegMix, folder | the files' names: `train_<domain>-00.jsonl` | the files |
| Megatron, blend list or per-split JSON | the prefixes' last parts | `<prefix>.bin`; weights, divided by their sum |
| OLMo-core, source mixture YAML | the `source_name`s | `paths`; `target_ratio` |
| OLMo-core, mix (`label,path` a line) | the labels | the paths |
| `pool:NAME` | a published pool's sources | tokens and the published weights |

Names become names of domains as in tables (`exchange.columns.domain_names`). Weights of a launch's levels are
multiplied down. What has neither files nor tokens is an error that names it.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from exchange.columns import domain_names
from exchange.sheets import InvalidTable, listed
from mixing.pools import POOLS

Document = dict[str, Any]
_LEVELS = ("topics", "quality")
_SET_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Leaf:
    """A domain as it was found: what it is called there, and what is known of it."""

    label: str
    files: tuple[str, ...] = ()
    tokens: int | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Imported:
    """What was found: the body of `POST /v1/domain-sets`, and what else the source asks for.

    Attributes:
        kind: what it was taken for.
        domain_set: the body.
        weights: `{domain: weight}` summing to 1, where it has a mixture of all of them.
        optimization: what of an optimization it says: `target_tokens`, `repetition_cap`.
        notes: what was done on the way.
    """

    kind: str
    domain_set: Document
    weights: Mapping[str, float] | None = None
    optimization: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> Document:
        """The parts a file of `mixwright apply` has, and the mixture as `POST /v1/mixtures` takes it."""
        document: Document = {"domain_set": self.domain_set}
        if self.optimization:
            document["optimization"] = dict(self.optimization)
        if self.weights is not None:
            document["mixture"] = {
                "domain_set": self.domain_set["name"],
                "name": "imported",
                "weights": dict(self.weights),
            }
        return document


def read_import(given: str, name: str | None = None, base: str = "") -> Imported:
    """The domain set of a file, a folder or `pool:NAME`.

    Args:
        given: a path, or `pool:` with a pool's name.
        name: of the domain set; that of the file when left out.
        base: put before every path that is not absolute.

    Raises:
        InvalidTable: what cannot be read, or is none of these; a domain without files and tokens, by name.
    """
    if given.startswith("pool:"):
        return _pool(given.removeprefix("pool:"), name)
    path = Path(given)
    if path.is_dir():
        kind, leaves, asked = "RegMix folder", _regmix_folder(path), {}
    elif path.is_file():
        kind, leaves, asked = _file(path)
    else:
        raise InvalidTable(f"there is no file or folder {given}", field=given)
    if len(leaves) < 2:
        raise InvalidTable(
            f"{given}: a domain set has two domains at least; it has {len(leaves)}", field=given
        )
    return _imported(kind, path, name, [_based(leaf, base) for leaf in leaves], asked)


def _based(leaf: Leaf, base: str) -> Leaf:
    def whole(path: str) -> str:
        return path if not base or path.startswith("/") or "://" in path else f"{base.rstrip('/')}/{path}"

    return Leaf(leaf.label, tuple(map(whole, leaf.files)), leaf.tokens, leaf.weight)


def _imported(
    kind: str, path: Path, name: str | None, leaves: Sequence[Leaf], asked: Mapping[str, Any]
) -> Imported:
    names = domain_names(str(path), [leaf.label for leaf in leaves])
    if bare := [leaf.label for leaf in leaves if not leaf.files and leaf.tokens is None]:
        raise InvalidTable(
            f"{path} tells neither files nor tokens of {listed(bare)}: a {kind} names domains only. Give the"
            " tokens (`priors.token_counts`), or the files",
            field=str(path),
            names=bare,
        )
    notes = [
        f"{leaf.label} is called {called}"
        for leaf, called in zip(leaves, names, strict=True)
        if leaf.label != called
    ]
    domains = [
        {
            "name": called,
            **({"files": list(leaf.files)} if leaf.files else {}),
            **({"tokens": leaf.tokens} if leaf.tokens is not None else {}),
        }
        for called, leaf in zip(names, leaves, strict=True)
    ]
    weights = None
    if all(leaf.weight is not None for leaf in leaves):
        total = math.fsum(leaf.weight or 0.0 for leaf in leaves)
        if total <= 0:
            raise InvalidTable(f"{path}: its weights sum to {total:g}", field=str(path))
        if abs(total - 1) > 1e-6:
            notes.append(f"the weights summed to {total:.6g} and were divided by their sum")
        weights = {called: (leaf.weight or 0.0) / total for called, leaf in zip(names, leaves, strict=True)}
    called = name or _SET_NAME.sub("-", path.stem).strip("-.")[:64] or "imported"
    return Imported(kind, {"name": called, "domains": domains}, weights, asked, tuple(notes))


def _pool(pool: str, name: str | None) -> Imported:
    pools = {each.name: each for each in POOLS}
    if pool not in pools:
        raise InvalidTable(f"there is no pool {pool!r}; there are {', '.join(sorted(pools))}", field="pool")
    found = pools[pool]
    percents = [source.percent for source in found.sources]
    known = all(percent is not None for percent in percents)
    total = math.fsum(percent or 0.0 for percent in percents)
    domains = [{"name": source.name, "tokens": round(source.tokens)} for source in found.sources]
    weights = {s.name: (s.percent or 0.0) / total for s in found.sources} if known else None
    notes = (f"{found.title}: tokens as published; give `files` where there is text to train proxies on",)
    return Imported(
        "open pool", {"name": name or pool.replace("_", "-"), "domains": domains}, weights, {}, notes
    )


def _file(path: Path) -> tuple[str, list[Leaf], Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTable(f"{path}: {error}", field=str(path)) from error
    if path.suffix in (".yaml", ".yml", ".json"):
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidTable(f"{path}: {error}", field=str(path)) from error
        if isinstance(document, dict):
            return _document(document, path)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and all(re.fullmatch(r"[^\s,]+,\S+", line) for line in lines):
        return "OLMo-core mix", list(_mix(lines)), {}
    return "Megatron blend", list(_blend(text.split(), path)), {}


def _document(document: Document, path: Path) -> tuple[str, list[Leaf], Mapping[str, Any]]:
    if isinstance(sources := document.get("sources"), list):
        return "OLMo-core source mixture", list(_source_mixture(sources, path)), {}
    if isinstance(train := document.get("train"), dict):
        labels = {str(label).removeprefix("train_"): weight for label, weight in train.items()}
        return (
            "RegMix configuration",
            [Leaf(label, weight=_number(w, path)) for label, w in labels.items()],
            {},
        )
    if isinstance(train, list):
        return "Megatron blend", list(_blend([str(part) for part in train], path)), {}
    if isinstance(document.get("data"), dict) or isinstance(document.get("priors"), dict):
        return "Olmix configuration", list(_olmix(document, path)), _asked(document, path)
    raise InvalidTable(
        f"{path} is no Olmix or RegMix configuration, OLMo-core source mixture or Megatron blend: it has"
        f" {listed(list(map(str, document)))}",
        field=str(path),
    )


def _source_mixture(sources: Sequence[Any], path: Path) -> Iterator[Leaf]:
    for number, source in enumerate(sources, 1):
        if not isinstance(source, dict) or "source_name" not in source:
            raise InvalidTable(f"{path}: source {number} has no source_name", field=str(path))
        ratio = source.get("target_ratio")
        weight = None if ratio is None else _number(ratio, path)
        yield Leaf(str(source["source_name"]), tuple(map(str, source.get("paths", ()))), None, weight)


def _olmix(document: Document, path: Path) -> Iterator[Leaf]:
    counts = (document.get("priors") or {}).get("token_counts") or {}
    sources = (document.get("data") or {}).get("sources") or []
    mix = document.get("mix")
    if not sources:
        for label, tokens in counts.items():
            yield Leaf(str(label), tokens=round(_number(tokens, path)))
        return
    for parts, paths in _leaves(sources, path):
        label = ":".join(parts)
        tokens = counts.get(label)
        weight = _multiplied(mix, parts, path) if isinstance(mix, dict) else None
        yield Leaf(label, paths, None if tokens is None else round(_number(tokens, path)), weight)
    known = {":".join(parts) for parts, _ in _leaves(sources, path)}
    if stray := [str(label) for label in counts if str(label) not in known]:
        raise InvalidTable(
            f"{path}: priors.token_counts has {listed(stray)}, which data.sources has not",
            field=str(path),
            names=stray,
        )


def _leaves(
    sources: Sequence[Any], path: Path, above: tuple[str, ...] = (), depth: int = 0
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for source in sources:
        if not isinstance(source, dict) or "name" not in source:
            raise InvalidTable(
                f"{path}: a source below {':'.join(above) or 'data'} has no name", field=str(path)
            )
        parts = (*above, str(source["name"]))
        inner = source.get(_LEVELS[depth]) if depth < len(_LEVELS) else None
        if inner:
            yield from _leaves(inner, path, parts, depth + 1)
        else:
            yield parts, tuple(map(str, source.get("paths", ())))


def _multiplied(mix: Any, parts: Sequence[str], path: Path) -> float:
    """The weight of a leaf of a launch: those of its levels, multiplied."""
    weight, node = 1.0, mix
    for part in parts:
        node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or "weight" not in node:
            raise InvalidTable(
                f"{path}: mix has no weight of {':'.join(parts)}", field=str(path), names=[":".join(parts)]
            )
        weight *= _number(node["weight"], path)
    return weight


def _asked(document: Document, path: Path) -> Mapping[str, Any]:
    constraints = document.get("constraints") or {}
    if not constraints.get("enabled", bool(constraints)):
        return {}
    told = (("target_tokens", "target_tokens", round), ("repetition_factor", "repetition_cap", float))
    return {
        ours: of(_number(constraints[theirs], path)) for theirs, ours, of in told if theirs in constraints
    }


def _mix(lines: Sequence[str]) -> Iterator[Leaf]:
    files: dict[str, list[str]] = {}
    for line in lines:
        label, _, path = line.partition(",")
        files.setdefault(label, []).append(path)
    for label, paths in files.items():
        yield Leaf(label, tuple(paths))


def _blend(parts: Sequence[str], path: Path) -> Iterator[Leaf]:
    if len(parts) < 2 or len(parts) % 2:
        raise InvalidTable(
            f"{path}: a Megatron blend is weight, prefix, weight, prefix; it has {len(parts)} parts",
            field=str(path),
        )
    prefixes = [prefix.removesuffix(".bin").removesuffix(".idx") for prefix in parts[1::2]]
    labels = [
        re.sub(r"_(text|content)(_document|_sentence)?$", "", prefix.rsplit("/", 1)[-1])
        for prefix in prefixes
    ]
    if len(set(labels)) < len(labels):  # files of one name in folders of their own
        labels = [prefix.strip("/").replace("/", "_") for prefix in prefixes]
    for weight, label, prefix in zip(parts[::2], labels, prefixes, strict=True):
        yield Leaf(label, (f"{prefix}.bin",), None, _number(weight, path))


def _regmix_folder(folder: Path) -> list[Leaf]:
    """Its files by domain: `train_<domain>-00001.jsonl`, below `train/` where there is one."""
    below = folder / "train" if (folder / "train").is_dir() else folder
    files: dict[str, list[str]] = {}
    for path in sorted(below.iterdir()):
        stem = path.name.split(".", 1)[0]
        if path.is_file() and stem.startswith("train_"):
            label = re.sub(r"[-_](\d+|part-?\d+)([-_]of[-_]\d+)?$", "", stem.removeprefix("train_"))
            files.setdefault(label, []).append(str(path.absolute()))
    if not files:
        raise InvalidTable(f"{below} has no files called train_<domain>...", field=str(folder))
    return [Leaf(label, tuple(paths)) for label, paths in files.items()]


def _number(value: Any, path: Path) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0 or isinstance(value, bool):
        raise InvalidTable(f"{path}: {value!r} is no number of at least 0", field=str(path))
    return number
