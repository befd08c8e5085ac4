"""What the storm is about: small domains of real text and swarms of tiny proxy runs, asked for through the API."""

import json
import sysconfig
from pathlib import Path
from typing import Any

from service.client import Client

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = {"code:mail": "email", "code:web": "http", "code:data": "json"}
LONGEST = 120_000
PIECE = 1500
SET = "library"
TOKENS = 2048
PROXY = {"size": "nano-0.1M", "sequence_length": 64, "batch_rows": 8, "evaluations": 1}


def write_corpora(directory: Path) -> list[dict[str, Any]]:
    """Modules of Python's own library as JSONL; answers the domains of a request."""
    directory.mkdir(parents=True, exist_ok=True)
    domains = []
    for name, package in PACKAGES.items():
        sources = sorted((LIBRARY / package).glob("*.py"))
        text = "\n".join(source.read_text(encoding="utf-8") for source in sources)[:LONGEST]
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        path = directory / f"{package}.jsonl"
        path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces))
        domains.append({"name": name, "files": [str(path)]})
    return domains


def ask_domains(client: Client, corpora: Path) -> None:
    """Post the domain set; the same one however often it is asked."""
    request = {
        "name": SET,
        "tokenizer": {"vocabulary_size": 512},
        "held_out_fraction": 0.05,
        "evaluation_bytes": 4096,
        "domains": write_corpora(corpora),
    }
    client.create_domain_set(request, "the domain set")


def ask_swarm(client: Client, number: int, runs: int, tokens: int = TOKENS) -> str:
    """Post an optimization of ``runs`` proxy runs; the same one however often ``number`` is asked."""
    request = {
        "domain_set": SET,
        "method": "dml",
        "runs": runs,
        "seed": number,
        "target_tokens": 100_000,
        "repetition_cap": None,
        "proxy": {**PROXY, "tokens": tokens},
    }
    return client.create_optimization(request, f"optimization {number}")["id"]
