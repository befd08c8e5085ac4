"""What one user does to stop the service, or to read what is not theirs: the attacks of `benchmarks.abuse`."""

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow
import pyarrow.parquet

ATTACKER = "127.0.0.2"
"""Loopback has a network of addresses, so that the attacker's connections are not counted with the others'."""
PATIENCE = 120.0
DOMAINS, SHARES, SOURCES = 2000, 200, 20
SECRET = "what lies outside the data roots"


class Broken(RuntimeError):
    """An attack did what no attack may."""


@dataclass(frozen=True)
class Target:
    """The service as the attacker sees it, and what it keeps of the answers."""

    url: str
    token: str
    code: str
    folder: Path
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def connection(self) -> http.client.HTTPConnection:
        """A new connection, from the attacker's address."""
        place = urlsplit(self.url)
        return http.client.HTTPConnection(
            str(place.hostname), place.port, timeout=PATIENCE, source_address=(ATTACKER, 0)
        )

    def send(
        self, method: str, path: str, body: bytes, *headers: tuple[str, str]
    ) -> http.client.HTTPConnection:
        """A connection on which a request was sent, of JSON unless the headers say what it is."""
        connection = self.connection()
        connection.putrequest(method, path)
        for name, value in headers or (("Content-Type", "application/json"),):
            connection.putheader(name, value)
        connection.putheader("Authorization", f"Bearer {self.token}")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection

    def ask(self, method: str, path: str, body: bytes, *headers: tuple[str, str]) -> tuple[int, bytes]:
        """Send it, and note how long the answer took."""
        started = time.perf_counter()
        connection = self.send(method, path, body, *headers)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        self.seconds.append(time.perf_counter() - started)
        self.statuses[answer.status] += 1
        return answer.status, said

    def expect(self, status: int, *request: Any) -> None:
        """That it is refused so, or for lack of a turn; raises Broken."""
        found, said = self.ask(*request)
        if found not in (status, 429, 503):
            raise Broken(f"{request[:2]} was answered {found}: {said[:500]!r}")


Attack = Callable[[Target], None]
PLAN = "/v1/optimizations?dry_run=true"


def name_of(index: int) -> str:
    """Of one of the domains."""
    return f"source-{index % SOURCES}:topic-{index:04d}"


def _question(**more: Any) -> bytes:
    proxy = {"size": "nano-0.1M", "tokens": 2**20}
    asked = {"domain_set": "wide", "method": "olmix", "target_tokens": 4 * 10**11, "proxy": proxy, **more}
    return json.dumps(asked).encode()


@cache
def _conflicting() -> bytes:
    """Shares of which a hundred and one are too much together, over two thousand capped domains."""
    tens = [[name_of(index) for index in range(10 * share, 10 * share + 10)] for share in range(SHARES)]
    return _question(shares=[{"domains": ten, "minimum": 0.01} for ten in tens], repetition_cap=100)


@cache
def _dense() -> bytes:
    """Shares of half of all domains each, by the names of their groups."""
    halves = itertools.combinations([f"source-{number}" for number in range(SOURCES)], SOURCES // 2)
    some = itertools.islice(halves, SHARES)
    return _question(
        shares=[{"name": f"s{k}", "domains": half, "minimum": 0.3} for k, half in enumerate(some)]
    )


@cache
def _long() -> bytes:
    """A body as long as may be, of values that are checked one by one."""
    asked = {"domain_set": "wide", "name": "long", "weights": {f"{k:x}": 0.5 for k in range(60_000)}}
    return json.dumps(asked, separators=(",", ":")).encode()


def many_conflicts(target: Target) -> None:
    """Dry runs whose two hundred shares conflict."""
    target.expect(422, "POST", PLAN, _conflicting())


def dense_shares(target: Target) -> None:
    """Dry runs whose shares name every domain a hundred times."""
    target.expect(422, "POST", PLAN, _dense())


def huge_plans(target: Target) -> None:
    """Dry runs of twenty thousand runs over domains that are not counted yet."""
    target.expect(409, "POST", PLAN, _question(runs=20_000, domain_set="uncounted"))


def leaving(target: Target) -> None:
    """The same as `many_conflicts`, but nobody waits for the answer."""
    connection = target.send("POST", PLAN, _conflicting())
    time.sleep(0.05)
    connection.close()


def long_bodies(target: Target) -> None:
    """Mixtures of sixty thousand domains."""
    target.expect(422, "POST", "/v1/mixtures", _long())


def large_documents(target: Target) -> None:
    """A domain set of two thousand domains, a megabyte, by every connection an address may have."""
    target.expect(200, "GET", "/v1/domain-sets/wide", b"")


def large_pages(target: Target) -> None:
    """The same as a page."""
    target.expect(200, "GET", "/domain-sets/wide", b"")


def circles_of_links(target: Target) -> None:
    """``**`` over a folder with two links to its own ancestor."""
    _post_files(target, f"{target.folder}/circle/**/*.jsonl")


def parquet_bombs(target: Target) -> None:
    """A few hundred bytes that say they are gigabytes."""
    _post_files(target, f"{target.folder}/bomb.parquet")


def exchanged_links(target: Target) -> None:
    """A link that leads inside when it is checked, and outside when it is opened."""
    _post_files(target, f"{target.folder}/exchanged")


def two_content_types(target: Target) -> None:
    """A member named twice, in a body that is JSON to one reader and text to another."""
    body = b'{"domain_set": "wide", "domain_set": "other", "name": "x", "weights": {"a": 1.0}}'
    kinds = ("Content-Type", "application/json"), ("Content-Type", "text/plain")
    target.expect(400, "POST", "/v1/mixtures", body, *kinds)


def foreign_links(target: Target) -> None:
    """A link on another site that signs its visitor in."""
    headers = ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")
    target.expect(403, "GET", f"/?code={target.code}", b"", *headers)


def slow_heads(target: Target) -> None:
    """A connection that sends a byte now and then; it is never answered, only closed."""
    _slowly(target, b"GET /v1/runs HTTP/1.1\r\nHo")


def slow_bodies(target: Target) -> None:
    """The same of a body, behind a head that announces a megabyte."""
    head = (
        f"POST {PLAN} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {target.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    )
    _slowly(target, b'{"domain_set": "', head.encode())


def many_requests(target: Target) -> None:
    """Small requests without a pause."""
    target.expect(422, "POST", "/v1/optimizations", b"{}")


def _slowly(target: Target, sent: bytes, head: bytes = b"") -> None:
    connection = target.connection()
    connection.connect()
    assert connection.sock is not None
    try:
        connection.sock.sendall(head)
        for byte in sent:
            connection.sock.sendall(bytes([byte]))
            time.sleep(0.2)
    except OSError:
        pass
    connection.close()


def _post_files(target: Target, pattern: str) -> None:
    domains = [{"name": name, "files": [pattern]} for name in ("a", "b")]
    body = json.dumps({"name": "attack", "domains": domains}).encode()
    status, said = target.ask("POST", "/v1/domain-sets?dry_run=true", body)
    if SECRET.encode() in said or status not in (200, 409, 422, 429, 503):
        raise Broken(f"{pattern} was answered {status}: {said[:500]!r}")


ATTACKS: dict[Attack, int] = {
    many_conflicts: 42,
    dense_shares: 10,
    huge_plans: 10,
    leaving: 20,
    long_bodies: 10,
    large_documents: 100,
    large_pages: 20,
    circles_of_links: 16,
    parquet_bombs: 8,
    exchanged_links: 8,
    two_content_types: 20,
    foreign_links: 20,
    slow_heads: 50,
    slow_bodies: 50,
    many_requests: 20,
}
"""And by how many at once."""


@contextmanager
def traps(folder: Path, outside: Path) -> Iterator[None]:
    """Below a data root: a circle of links, a bomb, and a link that leads outside every other moment."""
    circle = folder / "circle" / "deep"
    circle.mkdir(parents=True)
    (circle / "one").symlink_to(folder / "circle")
    (circle / "two").symlink_to(folder / "circle")
    rows = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 20_000, "int32"), ["x" * 100_000])
    rows = pyarrow.table({"text": rows})
    pyarrow.parquet.write_table(rows, folder / "bomb.parquet", compression="zstd")
    texts = {folder / "harmless.jsonl": "harmless", outside / "secret.jsonl": SECRET}
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({"text": f"{text} {line} " * 40}) + "\n" for line in range(400)))
    ended = threading.Event()

    def exchange() -> None:
        for target in itertools.cycle(texts):
            (folder / "draft").symlink_to(target)
            (folder / "draft").replace(folder / "exchanged")
            if ended.wait(0.005):
                return

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    try:
        yield
    finally:
        ended.set()
        exchanging.join()
