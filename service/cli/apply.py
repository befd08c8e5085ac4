"""``mixwright apply``: what a file asks for, brought about; applying it again changes nothing. And ``import``.

A part of the file is the body of a request, as the API documents it:

    domain_set:                        # POST /v1/domain-sets, or the name of one that is there
      name: pool
      domains:
        - {name: web, files: [/data/web/*.jsonl.zst]}
        - {name: code, files: [/data/code/*.parquet]}
    revision: {}                       # what a changed tree cannot say by itself: POST .../revisions
    optimization:                      # POST /v1/optimizations, without its domain_set
      target_tokens: 10000000000
      proxy: {size: nano-1M, tokens: 20000000}
    launch:                            # POST /v1/launches, without its mixture_id
      size: mini-60M
      tokens: 1000000000

Beside or instead of an optimization a ``mixture`` by hand (POST /v1/mixtures, without its domain_set), which a launch
then trains on where there is no optimization. ``mixwright import`` writes such a file from another tool's.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli import (
    BAD_ENDS,
    ENDED_BADLY,
    Ended,
    complaint_of,
    connected,
    follow,
    json_option,
    print_json,
    service_options,
)

if TYPE_CHECKING:
    from service.client import Client

Document = dict[str, Any]
_PARTS = ("domain_set", "revision", "mixture", "optimization", "launch")


def read_document(path: Path) -> Document:
    """A YAML or JSON file with the parts of the module; a complaint for anything else."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path}: {error}") from error
    if not isinstance(document, dict) or "domain_set" not in document:
        raise click.ClickException(f"{path} has no domain_set: its parts are {', '.join(_PARTS)}")
    if stray := sorted(set(document) - set(_PARTS)):
        raise click.ClickException(
            f"{path} has {', '.join(map(repr, stray))}; its parts are {', '.join(_PARTS)}"
        )
    for part, twice in (("optimization", "domain_set"), ("launch", "mixture_id")):
        if twice in (document.get(part) or {}):
            raise click.ClickException(f"{path}: {part}.{twice} follows from the file; leave it out")
    if document.get("launch") and not (document.get("optimization") or document.get("mixture")):
        raise click.ClickException(f"{path}: a launch needs an optimization or a mixture to train on")
    return document


@dataclass
class Application:
    """One file on its way into the service.

    Attributes:
        client: of the service.
        asked: the file.
        wait: whether to wait for the mixture, and for the launch.
        said: what was done or would be, in sentences.
        made: the documents the service answered, by part.
    """

    client: "Client"
    asked: Document
    wait: bool = False
    said: list[str] = field(default_factory=list)
    made: Document = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the domain set."""
        given = self.asked["domain_set"]
        return given if isinstance(given, str) else str(given.get("name"))

    def apply(self) -> None:
        """Bring it about."""
        revision = self._revision()
        self.made["domain_set"] = revision
        if by_hand := self.asked.get("mixture"):
            body = {**by_hand, "domain_set": self.name, "revision": revision["number"]}
            self.made["mixture"] = self.client.create_mixture(body, _key("mixture", revision["id"], body))
            self.said.append(f"The mixture {self.made['mixture']['id']} is there.")
        if self.asked.get("launch") and not self.asked.get("optimization"):
            self._launch(self.made["mixture"]["id"])
            self._check_ends()
        if not (wanted := self.asked.get("optimization")):
            return
        body = {"revision": revision["number"], **wanted, "domain_set": self.name}
        key = _key("optimization", revision["id"], wanted)
        asked = _when_counted(self.client, revision, lambda: self.client.create_optimization(body, key))
        optimization = follow(self.client.events(asked["id"])) if self.wait else asked
        self.made["optimization"] = optimization
        self.said.append(f"The optimization {optimization['id']} is {_state(optimization)}.")
        if self.asked.get("launch") and optimization["state"] not in BAD_ENDS:
            self._launch(optimization["mixture_id"])
        self._check_ends()

    def _launch(self, mixture: str | None) -> None:
        if mixture is None:
            self.said.append(
                "The launch is posted when there is a mixture: apply again then, or with --wait."
            )
            return
        body = {**self.asked["launch"], "mixture_id": mixture}
        made = self.client.create_launch(body, _key("launch", mixture, body))
        launch = follow(self.client.events(made["id"])) if self.wait else made
        self.made["launch"] = launch
        self.said.append(f"The launch {launch['id']} is {_state(launch)}.")

    def _check_ends(self) -> None:
        for part in ("optimization", "launch"):
            if self.made.get(part, {}).get("state") in BAD_ENDS:
                raise Ended(" ".join(self.said), ENDED_BADLY)

    def _revision(self) -> Document:
        """The revision the file describes, made where it is not there yet."""
        given = self.asked["domain_set"]
        if (known := self._known()) is None:
            self._check_optimization()
            made = self.client.create_domain_set(given, _key("domain_set", given))
            self.said.append(f"The domain set {self.name} was made, of {len(made['domains'])} domains.")
            return made
        change = self._change()
        if (
            change is not None and "patch" in change
        ):  # what it changes is there only once: its key says if it was
            made = self.client.create_revision(self.name, change, _key("patch", self.name, change))
            self.said.append(
                f"Revision {made['number']} of {self.name} has the patch: {changed(made['changes'])}."
            )
            return made
        if change is None or (plan := self._planned(change)) is None:
            self.said.append(
                f"The domain set {self.name} is as the file says, at revision {known['number']}."
            )
            return known
        made = self.client.create_revision(self.name, change, _key("revision", known["id"], change))
        self.said.append(f"Revision {made['number']} of {self.name} was made: {changed(plan['changes'])}.")
        return made

    def _known(self) -> Document | None:
        """The latest revision; None where there is no domain set of the name, but not where only a name was given."""
        from service.client import ApiError

        try:
            return self.client.revision(self.name)
        except ApiError as error:
            if error.status == 404 and not isinstance(self.asked["domain_set"], str):
                return None
            raise

    def _check_optimization(self) -> None:
        """Refuse one whose request is wrong before its domain set is made, which nobody can plan it over yet."""
        from service.client import ApiError

        if wanted := self.asked.get("optimization"):
            try:
                self.client.plan_optimization({**wanted, "domain_set": self.name})
            except ApiError as error:
                if error.status != 404:
                    raise

    def _change(self) -> Document | None:
        """The request for the next revision; None where the file describes none."""
        given, further = self.asked["domain_set"], self.asked.get("revision") or {}
        if isinstance(given, str) or "patch" in further:
            return further or None
        return {"domains": given["domains"], **further}

    def _planned(self, change: Document) -> Document | None:
        """What the change would be; None where the newest revision is exactly that, or was made by it."""
        from service.client import ApiError

        try:
            return self.client.plan_revision(self.name, change)
        except ApiError as error:
            if error.code == "revision_unchanged":
                return None
            if error.code == "ambiguous_change":
                said = "; ".join(map(_question, error.problem.get("questions", ())))
                raise click.ClickException(
                    f"what became of some domains is ambiguous: {said}. Say it in the file, as in"
                    " `revision: {said: {web: split}}`"
                ) from error
            raise

    def plan(self) -> None:
        """Say what `apply` would do and what it would cost."""
        given, wanted = self.asked["domain_set"], self.asked.get("optimization")
        known = self._known()
        if known is None:
            self._check_optimization()
            self.made["domain_set"] = self.client.plan_domain_set(given)
            files = sum(part["files"] for row in self.made["domain_set"]["domains"] for part in row["files"])
            self.said.append(
                f"The domain set {self.name} would be made, of {len(given['domains'])} domains and {files} files."
            )
        elif (change := self._change()) is not None and (plan := self._planned(change)) is not None:
            self.made["domain_set"] = plan
            self.said.append(f"Revision {plan['number']} would be made: {changed(plan['changes'])}.")
        else:
            self.said.append(f"The domain set {self.name} stays as it is, at revision {known['number']}.")
        if wanted and known is None:
            self.said.append("What the optimization costs is known once the domains are counted.")
        elif wanted:
            self.made["optimization"] = planned = self.client.plan_optimization(
                {**wanted, "domain_set": self.name}
            )
            self.said += planned["sentences"] or ["An optimization would be started."]


def changed(changes: Mapping[str, Any]) -> str:
    """A revision's changes in a line."""
    parts = [
        f"{what} {', '.join(map(str, changes[what]))}"
        for what in ("added", "removed", "revised", "renamed", "split", "merged")
        if changes[what]
    ]
    return "; ".join([*parts, f"{changes['kept']} kept"])


def _question(question: Mapping[str, Any]) -> str:
    words = ", ".join(f"{one['word']} ({one['means']})" for one in question["candidates"])
    return f"{question['domain']}: {words}"


def _key(*parts: Any) -> str:
    """One key for the same request of a file, so that applying it again makes nothing anew."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return f"apply-{hashlib.sha256(canonical.encode()).hexdigest()}"


def _state(document: Mapping[str, Any]) -> str:
    failure = document.get("failure")
    return f"{document['state']}: {failure['code']}: {failure['detail']}" if failure else document["state"]


def _when_counted(client: "Client", revision: Mapping[str, Any], ask: Any) -> Document:
    """What is asked for, after the domains are counted where it needs that."""
    from service.client import ApiError

    try:
        return ask()
    except ApiError as error:
        if error.code != "not_counted":
            raise
    follow(client.preparation(revision["domain_set"], revision["number"]))
    return ask()


@click.command(
    epilog="Example: mixwright apply pool.yaml --dry-run, then mixwright apply pool.yaml --wait.  "
    "What a file holds: `domain_set`, `revision`, `optimization` and `launch`, each the body of the API's request."
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be done and what it costs; store nothing.")
@click.option("--wait", is_flag=True, help="Follow the optimization, and the launch, to their end.")
@json_option
@service_options
def apply(
    file: Path, dry_run: bool, wait: bool, as_json: bool, url: str | None, data_directory: Path | None
) -> None:
    """Bring about what FILE asks for: domain set, optimization, launch. Again it changes nothing."""
    asked = read_document(file)
    with connected(url, data_directory) as client:
        application = Application(client, asked, wait)
        try:
            (application.plan if dry_run else application.apply)()
        finally:
            if as_json:
                print_json(application.made)
    if not as_json:
        click.echo("\n".join(application.said))


@click.command(
    "import",
    epilog="Example: mixwright import generate.yaml > pool.json, or: mixwright import pool:dolma3 --post",
)
@click.argument("given", metavar="FILE|FOLDER|pool:NAME")
@click.option("--name", help="Of the domain set.  [that of the file]")
@click.option("--base", default="", help="Put before every path that is not absolute: /data or s3://bucket.")
@click.option("--post", is_flag=True, help="Make the domain set, and its mixture where it has one.")
@click.option("--json", "as_json", is_flag=True, help="With --post: print the API's answers as JSON.")
@service_options
def import_(
    given: str,
    name: str | None,
    base: str,
    post: bool,
    as_json: bool,
    url: str | None,
    data_directory: Path | None,
) -> None:
    """Read what Olmix, RegMix, Megatron or OLMo-core are configured with as a domain set.

    Prints the API's own document, which `mixwright apply` takes once an optimization is added.
    """
    from exchange.imports import read_import
    from mixing.errors import MixingError

    with complaint_of(MixingError):
        found = read_import(given, name, base)
    click.echo(f"{given} was read as {found.kind}: {len(found.domain_set['domains'])} domains", err=True)
    for note in found.notes:
        click.echo(f"  {note}", err=True)
    document = found.to_dict()
    if not post:
        print_json(document)
        return
    with connected(url, data_directory) as client:
        answers = {"domain_set": client.create_domain_set(found.domain_set)}
        if found.weights is not None:
            answers["mixture"] = client.create_mixture(document["mixture"])
    if as_json:
        print_json(answers)
        return
    click.echo(f"The domain set {found.domain_set['name']} was made.")
    if "mixture" in answers:
        click.echo(f"Its mixture is {answers['mixture']['id']}.")
