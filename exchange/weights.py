"""Weights as people keep them: a table of domain and weight, a mapping, or Olmix's list of both."""

import json
from pathlib import Path
from typing import Any

from exchange.sheets import InvalidTable, read_sheet


def read_weights(path: Path) -> dict[str, float]:
    """`{domain: weight}` of a CSV, JSON or YAML file, as it stands there: the sum is for who uses it to check.

    Raises:
        InvalidTable: no such file; a row that is no domain with its weight; a domain named twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTable(f"{path}: {error}", field=str(path)) from error
    if path.suffix in (".json", ".yaml", ".yml"):
        return _of_document(_parsed(text, path), path)
    sheet = read_sheet(path)
    numeric = [name for name in sheet.columns if sheet.is_numeric(name)]
    texts = [name for name in sheet.columns if name not in numeric]
    if "weight" in sheet.columns:
        numeric = ["weight"]
    if len(numeric) != 1 or len(texts) != 1:
        raise InvalidTable(f"{path}: needs one column of domains and one called weight", field=str(path))
    pairs = [(str(sheet.columns[texts[0]][row]), sheet.number(row, numeric[0])) for row in range(len(sheet))]
    return _of_pairs(pairs, path)


def _parsed(text: str, path: Path) -> Any:
    import yaml

    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidTable(f"{path}: {error}", field=str(path)) from error


def _of_document(document: Any, path: Path) -> dict[str, float]:
    if isinstance(document, dict) and isinstance(document.get("weights"), dict):
        document = document["weights"]
    if isinstance(document, dict):
        return _of_pairs(list(document.items()), path)
    if isinstance(document, list) and all(isinstance(row, dict) and "domain" in row for row in document):
        return _of_pairs([(row["domain"], row.get("weight")) for row in document], path)
    raise InvalidTable(f"{path}: neither a mapping of domains to weights nor a list of both", field=str(path))


def _of_pairs(pairs: list[tuple[Any, Any]], path: Path) -> dict[str, float]:
    weights: dict[str, float] = {}
    for name, value in pairs:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidTable(
                f"{path}: the weight of {name!r} is {value!r}", field=str(path), names=[str(name)]
            )
        if str(name) in weights:
            raise InvalidTable(f"{path}: {name!r} is named twice", field=str(path), names=[str(name)])
        weights[str(name)] = float(value)
    return weights
