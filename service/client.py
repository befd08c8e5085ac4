"""A client of the v1 API: ``Client(url, token)``.

Every POST that changes something carries an ``Idempotency-Key``, so a request whose answer was lost (the service was
being restarted, the connection broke) is sent again without being done twice.
"""

import json
import math
import tarfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import httpx

from proxy_models.storage import unpack_folder
from proxy_models.stores.file_system import again

Document = dict[str, Any]
Answer = TypeVar("Answer")

REQUEST_TIMEOUT_SECONDS = 60.0
PATIENCE_SECONDS = 60.0
"""How long a request is sent again while the service does not answer: longer than a restart takes."""
PAUSE_SECONDS = 0.2
STREAM_TIMEOUT_SECONDS = 60.0
"""Of silence: the service says at least every 15 s that it is there."""
ENDED = ("succeeded", "failed", "cancelled")
_KINDS = {"opt": "optimizations", "launch": "launches"}


class ApiError(Exception):
    """The service refused a request: its problem document, by part."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", ""))
        self.field = problem.get("field")
        self.problem = dict(problem)
        super().__init__(f"{status} {self.code}: {self.detail}" + (f" [{self.field}]" if self.field else ""))


class _Unavailable(ApiError):
    """What it needs does not answer, or it is just being started again."""


class Unreachable(Exception):
    """The service did not answer for longer than a restart takes."""


class Client:
    """Talks to one service. Documents come back as the API gives them; refusals are ApiError.

    >>> domains = [{"name": "web", "files": files[:1]}, {"name": "code", "files": files[1:]}]
    >>> weights = {"web": 0.7, "code": 0.3}
    >>> with Client(url, token) as client:  # of `mixwright serve` and `mixwright token`
    ...     revision = client.create_domain_set({"name": "pool", "domains": domains})
    ...     mixture = client.create_mixture({"domain_set": "pool", "name": "by-hand", "weights": weights})
    ...     client.mixture(mixture["id"])["weights"]
    {'code': 0.3, 'web': 0.7}
    """

    def __init__(
        self,
        url: str,
        token: str,
        transport: httpx.BaseTransport | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._patience = patience
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=REQUEST_TIMEOUT_SECONDS,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def create_domain_set(self, request: Mapping[str, Any], key: str | None = None) -> Document:
        """POST a domain set; answers its first revision."""
        return self._post("/v1/domain-sets", request, key)

    def plan_domain_set(self, request: Mapping[str, Any]) -> Document:
        """What the files of a domain set are, by format, and which of them are left out; nothing is stored."""
        return self._request("POST", "/v1/domain-sets", json=dict(request), params={"dry_run": True})

    def create_revision(
        self, name: str, change: Mapping[str, Any] | list[Document], key: str | None = None
    ) -> Document:
        """POST the next revision of a domain set: the request, or the whole tree's domains alone.

        An ambiguous change is an ApiError of code ``ambiguous_change``, with ``problem["questions"]``.
        """
        return self._post(f"/v1/domain-sets/{name}/revisions", _revision_request(change), key)

    def plan_revision(self, name: str, change: Mapping[str, Any] | list[Document]) -> Document:
        """What the next revision would change; nothing is stored."""
        path = f"/v1/domain-sets/{name}/revisions"
        return self._request("POST", path, json=_revision_request(change), params={"dry_run": True})

    def revision(self, name: str, number: int | None = None) -> Document:
        """A revision, the latest without ``number``."""
        return self._get(f"/v1/domain-sets/{name}" + (f"/revisions/{number}" if number else ""))

    def preparation(self, name: str, number: int) -> Iterator[Document]:
        """A revision now and every second, until its domains are counted or that has failed."""
        while True:
            document = self.revision(name, number)
            yield document
            if document["state"] in ENDED:
                return
            time.sleep(1.0)

    def retry_revision(self, name: str, number: int) -> Document:
        """Prepare again what failed."""
        return self._post(f"/v1/domain-sets/{name}/revisions/{number}:retry")

    def pools(self) -> Iterator[Document]:
        """The fully open pools."""
        yield from self._get("/v1/pools")["items"]

    def pool(self, name: str) -> Document:
        """A fully open pool; ``pool["domain_set"]`` is a request for `create_domain_set`."""
        return self._get(f"/v1/pools/{name}")

    def quality_curves(self, request: Mapping[str, Any]) -> Document:
        """How often to read each quality bucket of some topics, and the shares that pin them; nothing is stored."""
        return self._request("POST", "/v1/quality-curves", json=dict(request))

    def create_optimization(
        self, request: Mapping[str, Any], key: str | None = None, wait: bool = False
    ) -> Document:
        """POST an optimization; the workers go on with it. With ``wait`` the document of its end (`wait`)."""
        made = self._post("/v1/optimizations", request, key)
        return self.wait(made["id"]) if wait else made

    def plan_optimization(self, request: Mapping[str, Any]) -> Document:
        """What an optimization would freeze, train and reuse, and what that costs; nothing is stored."""
        return self._request("POST", "/v1/optimizations", json=dict(request), params={"dry_run": True})

    def optimization(self, optimization_id: str) -> Document:
        """State, stages, counts, rate and ETA."""
        return self._get(f"/v1/optimizations/{optimization_id}")

    def events(self, what: str, seconds: float | None = None) -> Iterator[Document]:
        """The document of an optimization or a launch (``what`` is its id) now and whenever it changes, to its end.

        Or for so many ``seconds`` and a few more.

            for document in client.events(optimization["id"]):
                print(document["stage"], document["progress"]["eta_seconds"])

        A stream that breaks is taken up again. Raises Unreachable where the service stays away.
        """
        for document in self._follow(f"{_address(what)}/events", seconds):
            yield document
            if document["state"] in ENDED:
                return

    def changes(self, seconds: float | None = None) -> Iterator[Document]:
        """Each optimization, launch and swarm under way, and then whenever its state, its counts or progress change.

        For ever, or for so many ``seconds`` and a few more. ``kind`` and ``id`` say what it is.
        """
        yield from self._follow("/v1/events", seconds)

    def _follow(self, path: str, seconds: float | None) -> Iterator[Document]:
        known, end = "", math.inf if seconds is None else time.monotonic() + seconds
        while not known or time.monotonic() < end:
            events = self._patiently(f"GET {path}", partial(self._open_stream, path, known, end))
            for name, document in events:
                known = name
                yield document

    def _open_stream(self, path: str, known: str, end: float) -> Iterator[tuple[str, Document]]:
        """The events behind ``known``, once the service has begun to send them; what breaks later ends them."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": known} if known else {})}
        request = self._http.build_request("GET", path, headers=headers, timeout=STREAM_TIMEOUT_SECONDS)
        left = max(end - time.monotonic(), 1.0)
        request.extensions["timeout"]["read"] = min(left, STREAM_TIMEOUT_SECONDS)
        response = self._http.send(request, stream=True)
        if not response.is_success:
            response.read()
            _document(response)
        return _events_of(response, end)

    def wait(self, what: str) -> Document:
        """The document of an optimization or a launch when it has ended, whatever its ``state`` is then."""
        return deque(self.events(what), maxlen=1).pop()

    def cancel_optimization(self, optimization_id: str) -> Document:
        """Stop it."""
        return self._post(f"/v1/optimizations/{optimization_id}:cancel")

    def extend_optimization(
        self, optimization_id: str, request: Mapping[str, Any], key: str | None = None
    ) -> Document:
        """Train more runs for one that has an answer: ``{"runs": 16}`` or ``{"device_hours": 2}``."""
        return self._post(f"/v1/optimizations/{optimization_id}:extend", request, key)

    def plan_extension(self, optimization_id: str, request: Mapping[str, Any]) -> Document:
        """What an extension would train and what that costs; nothing is stored."""
        path = f"/v1/optimizations/{optimization_id}:extend"
        return self._request("POST", path, json=dict(request), params={"dry_run": True})

    def retry_optimization(self, optimization_id: str) -> Document:
        """Go on with a failed or cancelled one."""
        return self._post(f"/v1/optimizations/{optimization_id}:retry")

    def create_mixture(self, request: Mapping[str, Any], key: str | None = None) -> Document:
        """POST a mixture made by hand."""
        return self._post("/v1/mixtures", request, key)

    def mixture(self, mixture_id: str) -> Document:
        """Weights, and the evidence of a proposed mixture."""
        return self._get(f"/v1/mixtures/{mixture_id}")

    def export_formats(self) -> Iterator[Document]:
        """The formats a mixture can be exported in."""
        yield from self._get("/v1/export-formats")["items"]

    def export_mixture(self, mixture_id: str, format: str, **asked: str | float) -> Document:
        """``files`` by name as a trainer reads them, and what it will draw, ``realised``.

        ``asked`` is what the format needs beyond the weights: ``path``, ``target_tokens``, ``repetition_cap``,
        ``sequence_length``, ``batch_rows``.
        """
        return self._get(f"/v1/mixtures/{mixture_id}/export", {"format": format, **asked})

    def export_schedule(
        self, phases: Iterable[tuple[str, int]], format: str, **asked: str | float
    ) -> Document:
        """``files`` of a run that trains on mixtures one after the other, each for so many tokens.

        ``phases`` has what is drawn in each, ``realised`` in all of them; ``asked`` as for `export_mixture`.
        """
        body = {
            "format": format,
            "phases": [{"mixture_id": name, "tokens": tokens} for name, tokens in phases],
            **asked,
        }
        return self._request("POST", "/v1/mixtures:schedule", json=body)

    def token_files(self, mixture_id: str, format: str, wait: bool = False, **run: int) -> Document:
        """Have a mixture's token files written, for ``olmo-core``, ``megatron``, ``streaming``, ``litdata`` or
        ``axolotl``; asked again, how far.

        ``run`` is ``sequence_length``, ``batch_rows`` and ``target_tokens``. With ``wait`` when that has ended. An
        export without a ``path`` and of the same run then names these files.
        """
        asked = {"format": format, **run}
        document = self._post(f"/v1/mixtures/{mixture_id}/token-files", asked)
        while wait and document["state"] not in ENDED:
            time.sleep(1.0)
            document = self._get(f"/v1/mixtures/{mixture_id}/token-files", asked)
        return document

    def evaluate(self, optimization_id: str, *mixtures: Mapping[str, Any]) -> Document:
        """What an optimization's runs predict of mixtures, and which of its limits they break.

        Each is ``{"weights": {...}}`` over all domains or ``{"mixture_id": ...}``, with a ``name`` or without.
        """
        body = {"optimization_id": optimization_id, "mixtures": list(mixtures)}
        return self._request("POST", "/v1/mixtures:evaluate", json=body)

    def adopt(self, domain_set: str, mixture_id: str, why: str) -> Document:
        """Mark a mixture as the one its domain set has in use from now on."""
        return self._post(f"/v1/domain-sets/{domain_set}/adoptions", {"mixture_id": mixture_id, "why": why})

    def lineage(self, mixture_id: str) -> Document:
        """Where a mixture comes from: revisions, maps, optimizations and runs."""
        return self._get(f"/v1/mixtures/{mixture_id}/lineage")

    def create_launch(
        self, request: Mapping[str, Any], key: str | None = None, wait: bool = False
    ) -> Document:
        """POST a launch of the full trainer. With ``wait`` the document of its end (`wait`)."""
        made = self._post("/v1/launches", request, key)
        return self.wait(made["id"]) if wait else made

    def plan_launch(self, request: Mapping[str, Any]) -> Document:
        """What a launch would read of each domain; nothing is stored."""
        return self._request("POST", "/v1/launches", json=dict(request), params={"dry_run": True})

    def cancel_launch(self, launch_id: str) -> Document:
        """Stop it."""
        return self._post(f"/v1/launches/{launch_id}:cancel")

    def launch(self, launch_id: str) -> Document:
        """Progress of a launch, then what was measured on its model."""
        return self._get(f"/v1/launches/{launch_id}")

    def retry_launch(self, launch_id: str) -> Document:
        """Go on with a failed or cancelled launch."""
        return self._post(f"/v1/launches/{launch_id}:retry")

    def run(self, run_id: str) -> Document:
        """One run."""
        return self._get(f"/v1/runs/{run_id}")

    def download_model(self, run_id: str, directory: Path) -> None:
        """Write the trained model of a run into a new directory, as a Hugging Face folder.

        Raises FileExistsError where there is something of that name already; what came of a connection that broke is
        removed again.
        """
        self._unpacked(f"/v1/runs/{run_id}/model", {}, directory)

    def create_swarm(self, request: Mapping[str, Any], key: str | None = None) -> Document:
        """POST runs that were sampled and trained elsewhere."""
        return self._post("/v1/swarms", request, key)

    def swarm(self, swarm_id: str) -> Document:
        """One swarm, its runs counted by state."""
        return self._get(f"/v1/swarms/{swarm_id}")

    def export_swarm(self, swarm_id: str, format: str, directory: Path, **asked: str | float) -> None:
        """Write a configuration a run, as a trainer reads it, into a new directory.

        ``asked`` as in `export_mixture`, and ``waiting`` for the runs without results only. Raises FileExistsError
        where there is something of that name already.
        """
        self._unpacked(f"/v1/swarms/{swarm_id}/export", {"format": format, **asked}, directory)

    def add_results(self, swarm_id: str, results: Iterable[Document], replace: bool = False) -> Document:
        """POST results of runs that are trained elsewhere: ``{"run", "metrics"}`` or ``{"run", "failed"}`` each."""
        return self._post(f"/v1/swarms/{swarm_id}/results", {"results": [*results], "replace": replace})

    def finish_optimization(self, optimization_id: str) -> Document:
        """Have it go on with the results that are in."""
        return self._post(f"/v1/optimizations/{optimization_id}:finish")

    def runs(self, swarm_id: str) -> Iterator[Document]:
        """Every run of a swarm, page by page."""
        return self.pages("/v1/runs", swarm=swarm_id)

    def workers(self) -> Iterator[Document]:
        """Every slot of every worker machine."""
        return self.pages("/v1/workers")

    def tell_worker(self, worker_id: str, what: Literal["drain", "pause", "resume"]) -> Document:
        """Have a worker finish and stop, give back and stop, or go on."""
        return self._post(f"/v1/workers/{worker_id}:{what}")

    def pages(self, path: str, **parameters: Any) -> Iterator[Document]:
        """The items of a list, however many pages it has."""
        after: str | None = None
        while True:
            page = self._get(path, {**parameters, "limit": 200, **({"after": after} if after else {})})
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def _unpacked(self, path: str, query: Mapping[str, Any], directory: Path) -> None:
        """Write the archive at ``path`` as a new directory. Raises FileExistsError."""
        if directory.exists() or directory.is_symlink():
            raise FileExistsError(f"{directory} exists already")
        with self._http.stream("GET", path, params=query) as response:
            if not response.is_success:
                response.read()
                _document(response)
            unpack_folder(response.iter_bytes(tarfile.RECORDSIZE), directory)

    def _post(self, path: str, request: Mapping[str, Any] | None = None, key: str | None = None) -> Document:
        body = {} if request is None else {"json": dict(request)}
        return self._request("POST", path, headers={"Idempotency-Key": key or str(uuid.uuid4())}, **body)

    def _get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Document:
        return self._request("GET", path, params=parameters)

    def _request(self, method: str, path: str, **sent: Any) -> Document:
        return self._patiently(
            f"{method} {path}", lambda: _document(self._http.request(method, path, **sent))
        )

    def _patiently(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """What is asked for, once the service answers. Raises Unreachable where it stays away."""
        try:
            return again(ask, (httpx.TransportError, _Unavailable), self._patience, PAUSE_SECONDS)
        except httpx.TransportError as error:
            raise Unreachable(f"{what}: {error or type(error).__name__}") from error


def _address(what: str) -> str:
    """Of an optimization or a launch. Raises ValueError for another id."""
    kind = what.partition("_")[0]
    if kind not in _KINDS:
        raise ValueError(f"{what!r} is no id of an optimization (opt_...) or of a launch (launch_...)")
    return f"/v1/{_KINDS[kind]}/{what}"


def _events_of(response: httpx.Response, end: float) -> Iterator[tuple[str, Document]]:
    name = ""
    with closing(response), suppress(httpx.TransportError):
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "id":
                name = value
            elif field == "data":
                yield name, json.loads(value)
            if time.monotonic() > end:
                return


def _revision_request(change: Mapping[str, Any] | list[Document]) -> Document:
    return {"domains": change} if isinstance(change, list) else dict(change)


def _document(response: httpx.Response) -> Document:
    try:
        body = response.json()
    except ValueError:
        body = {"detail": response.text[:500]}
    if response.is_success:
        return body
    is_passing = response.status_code == httpx.codes.SERVICE_UNAVAILABLE
    raise (_Unavailable if is_passing else ApiError)(response.status_code, body)
