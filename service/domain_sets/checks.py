"""What is found good or refused of a domain's name, files and tokenizer before anything is stored.

Names that a reader takes for others are refused, because weights travel by name. Two rules, of Unicode Technical
Standard 39: a name is in its normal form (NFKC), so that equal-looking forms of one character are one, and no word
mixes letters of Latin, Greek and Cyrillic, which share shapes. A word wholly of another script may still look like a
Latin one; people who write in that script need it.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mixing.domains import check_names
from mixing.errors import InvalidDomainName, MixingError
from proxy_models.errors import CorpusError, ProxyError, StoreUnreachable
from proxy_models.stores.object_path import DataPath, FileIdentity, file_identity
from proxy_models.text.corpus import FileLook, TakenFiles, choose, look_at
from proxy_models.text.data_roots import found
from proxy_models.text.reading import BY_CONTENT, Reading
from proxy_models.text.token_files import TOKENIZER_FILES
from service.domain_sets.schemas import DomainPlanView, DomainRequest, FilesView, TokenizerRequest
from store.files import identity_hash, outside_roots, resolve_files, resolve_place
from store.problems import Invalid, Unavailable, invalid
from store.settings import Settings

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
PROBE_BYTES, PROBE_BYTES_IN_ALL = 2**22, 2**28
"""How much of each domain's text is read while the request waits, and of all domains' together; the rest is read by
their counting jobs."""

EXAMPLES = 3
"""Of files of one format, in a listing."""


@dataclass(frozen=True, slots=True)
class PlacedDomain:
    """A domain as requested, and which field of the request it is: ``domains[3]``, ``patch.split[0].into[1]``."""

    request: DomainRequest
    field: str


@dataclass(frozen=True, slots=True)
class CheckedDomain:
    """A domain whose files were found to be good; ``identity`` has each one's path, size and time.

    ``found`` is what a look found in them and beside them, by format; nothing for files that were counted before.
    """

    name: str
    identity: tuple[FileIdentity, ...]
    declared_tokens: int | None
    declared_bytes: int | None
    reading: Reading = BY_CONTENT
    found: DomainPlanView | None = None

    @property
    def view(self) -> DomainPlanView:
        """What was found in its files."""
        return self.found or DomainPlanView(name=self.name, files=[], sample=None)

    @property
    def files(self) -> list[str]:
        """The paths, in the order they were named."""
        return [path for path, _, _ in self.identity]

    @property
    def files_hash(self) -> str | None:
        """Equal for the same files, unchanged since; None without any."""
        return identity_hash(self.identity, self.reading.said) if self.identity else None


@dataclass(frozen=True, slots=True)
class FileRules:
    """What files are held against.

    ``counted`` are the hashes of files that were counted before, as they are now: they need not be looked into.
    With ``trains_tokenizer`` the domain set's is trained on its text, and token ids are not its own.
    """

    settings: Settings
    counted: Collection[str] = ()
    trains_tokenizer: bool = False
    probe_bytes: int = PROBE_BYTES


def check_tree(domains: Sequence[PlacedDomain], settings: Settings) -> None:
    """Raise Invalid where there are too many domains or their names are no tree; the field is the name at fault."""
    if len(domains) > settings.max_domains:
        raise Invalid("too_many_domains", f"At most {settings.max_domains} domains.", "domains")
    names = [domain.request.name for domain in domains]
    try:
        check_names(names)
        check_lookalikes(names)
    except MixingError as error:
        # The last that has a name at fault: the first may have been there before.
        index = max(index for index, name in enumerate(names) if name in error.names)
        raise invalid(error, f"{domains[index].field}.name") from error


def check_domains(domains: Sequence[PlacedDomain], rules: FileRules) -> list[CheckedDomain]:
    """`check_domain` for each; what hostile files cost is bounded where this is called in a process of its own."""
    share = min(PROBE_BYTES, PROBE_BYTES_IN_ALL // max(1, len(domains)))
    return [check_domain(domain, replace(rules, probe_bytes=share)) for domain in domains]


def check_domain(domain: PlacedDomain, rules: FileRules) -> CheckedDomain:
    """Resolve and look into a domain's files. Raises Invalid naming the field and the domain."""
    request = domain.request
    named: set[DataPath] = set()
    files: dict[DataPath, None] = {}
    for position, pattern in enumerate(request.files):
        field = f"{domain.field}.files[{position}]"
        matches = _resolved(pattern, request.name, rules, field)
        if len(matches) == 1 and pattern.endswith(matches[0].name):
            named.update(matches)
        for path in matches:
            if path in files:
                raise Invalid("duplicate_file", f"{str(path)!r} is named twice by {request.name!r}.", field)
            files[path] = None
    checked = CheckedDomain(
        request.name,
        tuple(map(file_identity, files)),
        request.tokens,
        request.size_bytes,
        request.reading.settings,
    )
    if not files or checked.files_hash in rules.counted:
        return checked
    choice = _look_into(checked, files, named, f"{domain.field}.files", rules)
    taken = {str(look.path) for look in choice.taken}
    identity = tuple(one for one in checked.identity if one[0] in taken)
    return replace(checked, identity=identity, found=_view(checked.name, choice))


def _view(name: str, choice: TakenFiles) -> DomainPlanView:
    groups: dict[tuple[str, str | None], list[FileLook]] = {}
    for look in choice.taken:
        groups.setdefault((look.format.name, None), []).append(look)
    for look, reason in choice.left_out:
        said = reason.removeprefix(f"{look.path}: ")  # the files that it is said of are listed
        groups.setdefault((look.format.name, said), []).append(look)
    files = [
        FilesView(
            format=format_name,
            files=len(looks),
            size_bytes=sum(look.size_bytes for look in looks),
            taken=reason is None,
            reason=reason,
            examples=[str(look.path) for look in looks[:EXAMPLES]],
        )
        for (format_name, reason), looks in groups.items()
    ]
    return DomainPlanView(name=name, files=files, sample=choice.taken[0].sample)


def _resolved(pattern: str, name: str, rules: FileRules, field: str) -> list[DataPath]:
    try:
        return resolve_files(pattern, rules.settings.roots, field)
    except (Invalid, Unavailable) as problem:
        raise type(problem)(problem.code, f"Domain {name!r}: {problem.detail}", field) from problem


def _look_into(
    domain: CheckedDomain,
    paths: Collection[DataPath],
    named: Collection[DataPath],
    field: str,
    rules: FileRules,
) -> TakenFiles:
    name = domain.name
    try:
        sizes = {path: size for path, (_, size, _) in zip(paths, domain.identity, strict=True)}
        choice = choose(look_at(paths, rules.probe_bytes, domain.reading, sizes), named)
        _check_ids(choice, rules)
    except StoreUnreachable as error:
        raise Unavailable(error.code, f"Domain {name!r}: {error}", field) from error
    except ProxyError as error:
        raise Invalid(error.code, f"Domain {name!r}: {error}", field) from error
    return choice


def _check_ids(choice: TakenFiles, rules: FileRules) -> None:
    """Refuse ids that a tokenizer trained here cannot have made, before there is one."""
    for look in choice.taken:
        if rules.trains_tokenizer and look.format.layout is not None and look.tokenizer is None:
            raise CorpusError(
                look.path,
                None,
                f"holds {look.format.name}, and this domain set trains a tokenizer of its own, which did not make "
                "them; give the one that did as tokenizer.huggingface",
            )


def check_tokenizer(request: TokenizerRequest, settings: Settings) -> dict[str, object]:
    """The tokenizer as stored: a path below the data roots, resolved, or a name on the Hugging Face hub.

    Raises Invalid for a path elsewhere, and for a name that could be taken for a file of the service's own.
    """
    name = request.huggingface
    if name is None:
        return {"vocabulary_size": request.vocabulary_size}
    field = "tokenizer.huggingface"
    if name.startswith(("/", ".", "~")):
        place = resolve_place(name, settings.roots, field)
        for file in TOKENIZER_FILES:  # the worker would not read it either
            try:
                found(place / file)
            except CorpusError as error:
                raise outside_roots(str(place / file), settings.roots, field) from error
        return {"huggingface": str(place)}
    if not _HUB_NAME.fullmatch(name) or ".." in name or Path(name).exists():
        raise Invalid("bad_path", f"{name!r} is neither an absolute path nor a name on the hub.", field)
    if not settings.allow_hub:
        raise Invalid(
            "hub_not_allowed",
            f"{name!r} would be fetched from the Hugging Face hub, if the operator allowed it (MIXWRIGHT_ALLOW_HUB); "
            "give the path of its tokenizer.json, or of its folder, below a data root.",
            field,
        )
    return {"huggingface": name, **({"revision": request.revision} if request.revision else {})}


_SHARED_SHAPES = ("LATIN", "GREEK", "CYRILLIC")
_WORD = re.compile(r"[^\W\d_]+")


def check_lookalikes(names: Sequence[str]) -> None:
    """Raises InvalidDomainName for the first name that breaks a rule."""
    for name in names:
        if name.isascii():
            continue
        normal = unicodedata.normalize("NFKC", name)
        if normal != name:
            raise InvalidDomainName(
                f"{name!r} has characters that stand for others; write {normal!r}", field="name", names=[name]
            )
        for word in _WORD.findall(name):
            scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in word} & {*_SHARED_SHAPES}
            if len(scripts) > 1:
                raise InvalidDomainName(
                    f"{name!r} mixes letters of {' and '.join(sorted(scripts)).title()} in one word, "
                    "which look alike",
                    field="name",
                    names=[name],
                )
