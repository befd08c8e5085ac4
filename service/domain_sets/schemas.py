"""Requests and answers about domain sets."""

from dataclasses import replace
from typing import Annotated, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from proxy_models.text.reading import CHAT_TEMPLATES, Copies, PlainText, Reading
from service.http.schemas import FailureView, Name, ProgressView, RequestModel, Time
from service.optimizations.schemas import TaskFileRequest


class TokenizerRequest(RequestModel):
    """A byte-level BPE trained on the domains themselves, or any Hugging Face tokenizer."""

    vocabulary_size: int | None = Field(default=None, ge=512, le=262_144)
    huggingface: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Absolute path of a tokenizer.json or its folder; or a name on the hub, where that is allowed.",
    )
    revision: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$",
        description="Commit, branch or tag of a name on the hub; the main branch when left out.",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.vocabulary_size is None) == (self.huggingface is None):
            raise ValueError("give either vocabulary_size or huggingface")
        if self.revision is not None and (self.huggingface or "/").startswith("/"):
            raise ValueError("revision is of a name on the hub")
        return self


class BadLines(RequestModel):
    """How many lines, rows and elements may be no documents, such as texts that are null: they are passed over."""

    at_most: float = Field(gt=0.0, le=0.5, description="Share of all lines of the domain.")

    @model_validator(mode="before")
    @classmethod
    def _share(cls, value: object) -> object:
        """The share alone is what a domain's view says."""
        return {"at_most": value} if isinstance(value, float) else value


class ReadingRequest(RequestModel):
    """What is said about reading a domain's files; their formats are told by their content."""

    text_field: str = Field(
        default="text",
        min_length=1,
        max_length=255,
        description="Member or column that holds the text; `raw.content` is the member `content` of `raw`.",
    )
    format: PlainText | None = Field(
        default=None,
        description="`text` reads any file as plain text, JSON and CSV too; `lines` a document from each line.",
    )

    chat: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Template of one message with `{role}` and `{content}`, or `tulu` or `chatml`; the text is then "
        "a list of messages, by default the member or column `messages`.",
    )
    max_bytes: int | None = Field(
        default=None,
        ge=2**16,
        lt=2**63,
        description="Of text that is read and counted, about: a sample of a domain whose `tokens` are declared.",
    )

    @field_validator("chat")
    @classmethod
    def _with_content(cls, chat: str | None) -> str | None:
        if chat is not None and chat not in CHAT_TEMPLATES and chat.count("{content}") != 1:
            known = ", ".join(CHAT_TEMPLATES)
            raise ValueError(f"a template has {{content}} once, or is the name of one ({known})")
        return chat

    bad_lines: BadLines | None = Field(default=None, description="Without it the first bad line is refused.")
    held_out_fraction: float | None = Field(
        default=None, gt=0.0, lt=0.5, description="Of this domain; the domain set's when left out."
    )
    copies: Copies = Field(
        default="keep",
        description="`drop` leaves out a document that the domain has already, `drop_shared` also what another domain"
        " of the set holds.",
    )

    @property
    def settings(self) -> Reading:
        """For the readers."""
        allowed = 0.0 if self.bad_lines is None else self.bad_lines.at_most
        return replace(Reading(**self.model_dump(exclude={"bad_lines"})), bad_lines=allowed)


class DomainRequest(RequestModel):
    """One leaf: its name, its files, and its size when it is known (the files may be a sample of it).

    Without files it is what its ``tokens`` say: nothing is counted, and nothing can be trained on it here.
    """

    name: str = Field(max_length=255)
    files: list[str] = Field(default_factory=list, max_length=10_000)
    tokens: int | None = Field(default=None, gt=0, lt=2**63)
    size_bytes: int | None = Field(default=None, gt=0, lt=2**63)
    reading: ReadingRequest = ReadingRequest()

    @model_validator(mode="after")
    def _sized(self) -> Self:
        if self.reading.max_bytes is not None and self.tokens is None:
            raise ValueError("a sample (max_bytes) does not say how large its domain is; give its tokens")
        if not self.files and self.tokens is None:
            raise ValueError("give its files, or without any its tokens")
        if not self.files and self.reading != ReadingRequest():
            raise ValueError("without files nothing is read; leave reading out")
        return self


class TreeRequest(RequestModel):
    """A whole tree of domains."""

    domains: list[DomainRequest] = Field(min_length=2)


DomainName = Annotated[str, Field(min_length=1, max_length=255)]


class SplitRequest(RequestModel):
    """A domain that falls into parts; together they hold its text."""

    domain: DomainName
    into: list[DomainRequest] = Field(min_length=2)


class MergeRequest(RequestModel):
    """Domains that become one, with the files of all of them."""

    into: DomainName
    domains: list[DomainName] = Field(min_length=2)
    tokens: int | None = Field(default=None, gt=0, lt=2**63)
    size_bytes: int | None = Field(default=None, gt=0, lt=2**63)


class PatchRequest(RequestModel):
    """What changes; domains that are not mentioned stay as they are."""

    add: list[DomainRequest] = Field(default_factory=list)
    remove: list[DomainName] = Field(default_factory=list)
    revise: list[DomainRequest] = Field(default_factory=list)
    rename: dict[DomainName, DomainName] = Field(default_factory=dict, description="New name by old name.")
    split: list[SplitRequest] = Field(default_factory=list)
    merge: list[MergeRequest] = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any((self.add, self.remove, self.revise, self.rename, self.split, self.merge)):
            raise ValueError("an empty patch changes nothing")
        return self


class RevisionRequest(RequestModel):
    """The next revision: the whole tree anew, or what changes in it."""

    domains: list[DomainRequest] | None = Field(default=None, min_length=2)
    patch: PatchRequest | None = None
    parent: int | None = Field(
        default=None, ge=1, lt=2**31, description="Revision it changes; the latest when left out."
    )
    said: dict[DomainName, Annotated[str, Field(min_length=1, max_length=300)]] = Field(
        default_factory=dict, description="What became of a domain, in the word its question offered."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.domains is None) == (self.patch is None):
            raise ValueError("give either domains (the whole tree) or a patch")
        if self.patch is not None and self.said:
            raise ValueError("a patch says itself what changes; said is for a whole tree")
        return self


class DomainSetRequest(TreeRequest):
    """A new domain set with its first revision."""

    name: Name
    tokenizer: TokenizerRequest = TokenizerRequest(vocabulary_size=4096)
    held_out_fraction: float = Field(default=0.02, gt=0.0, lt=0.5)
    evaluation_bytes: int = Field(
        default=65_536,
        ge=1024,
        le=2**26,
        description="Of each domain's held-out side, evaluated on every run.",
    )
    tasks: list[TaskFileRequest] = Field(
        default_factory=list,
        max_length=1000,
        description="What the text is held against when it is counted, of every revision: whether it has examples.",
    )


class RepeatedTextView(BaseModel):
    """A document that a domain has several times; its ``text`` is null where it is never trained on."""

    copies: int
    text: str | None


class BadLinesView(BaseModel):
    """Lines of a domain's files that are no documents and were passed over."""

    lines: int
    first: str


class DomainView(BaseModel):
    """A leaf and what counting its files found; ``tokens`` is the N_j the mathematics uses.

    That is what was declared, else ``counted_tokens``: those that are trained on, ``unique_tokens`` of these of
    different documents. ``documents`` and ``size_bytes`` are of all of its text, ``held_out_*`` what is never
    trained on.
    Equal ``files_hash`` are the same unchanged files, equal ``content_hash`` the same documents in whatever files.
    ``sample`` is the beginning of a held-out document as it was read, of token ids as they were decoded.
    ``repeated`` are the most frequent documents; ``lost_characters`` and ``lost_spaces`` shares of what is evaluated
    that the tokenizer does not give back. What counting told is null where an older version counted.
    """

    name: str
    files: list[str]
    reading: dict[str, object] | None
    declared_tokens: int | None
    declared_bytes: int | None
    tokens: int | None
    counted_tokens: int | None
    unique_tokens: int | None
    size_bytes: int | None
    documents: int | None
    repeated_documents: int | None
    repeated: list[RepeatedTextView] | None
    dropped_documents: int | None
    bad_lines: BadLinesView | None
    lost_characters: float | None
    lost_spaces: float | None
    held_out_bytes: int | None
    held_out_documents: int | None
    held_out_tokens: int | None
    warnings: list[str]
    files_hash: str | None
    content_hash: str | None
    sample: str | None
    state: str
    progress: ProgressView | None
    failure: FailureView | None


class ChangesView(BaseModel):
    """What a revision changed against its parent, by domain name.

    ``split`` names the new domains by the old one, ``merged`` the old ones by the new, ``renamed`` the new name by
    the old; ``kept`` counts the domains whose text is the same. ``confirmed`` says of every affected domain whether
    its content is what was said, null before it is counted; ``unconfirmed`` why it is not.
    """

    added: list[str]
    removed: list[str]
    revised: list[str]
    renamed: dict[str, str]
    split: dict[str, list[str]]
    merged: dict[str, list[str]]
    kept: int
    confirmed: dict[str, bool | None]
    unconfirmed: dict[str, str]


class FilesView(BaseModel):
    """Files of one format that a domain's paths name, and whether they are taken for its text."""

    format: str
    files: int
    size_bytes: int
    taken: bool
    reason: str | None = Field(description="Why they are left out.")
    examples: list[str] = Field(description="The first few of them.")


class DomainPlanView(BaseModel):
    """What a domain's files are, as far as a look told: empty for files that were counted before."""

    name: str
    files: list[FilesView]
    sample: str | None = Field(description="How its first document begins; null for token ids.")


class DomainSetPlanView(BaseModel):
    """What a domain set would be: nothing is stored."""

    domain_set: str
    domains: list[DomainPlanView]


class RevisionPlanView(BaseModel):
    """What a revision would be: nothing is stored."""

    domain_set: str
    number: int
    parent: int
    changes: ChangesView
    domains: list[DomainPlanView]


class RevisionView(BaseModel):
    """One immutable revision and the state of its preparation."""

    id: str
    domain_set: str
    number: int
    parent: int | None
    state: str
    progress: ProgressView
    tokenizer: dict[str, object] = Field(
        description="As asked for; once it is there with its `fingerprint`, which a sidecar of token ids may name."
    )
    vocabulary_size: int | None
    held_out_fraction: float
    evaluation_bytes: int
    tasks: list[str] = Field(description="What its text is held against when it is counted, by name.")
    tokens: int | None
    pool: str | None = Field(description="The fully open pool that these domains are, by names and tokens.")
    changes: ChangesView
    said: dict[str, str]
    domains: list[DomainView]
    shared_text: dict[str, object] | None = Field(
        description="What domains have in common; null until compared."
    )
    warnings: list[str] = Field(description="What to know of text that several domains hold.")
    failure: FailureView | None
    created_at: Time


class RevisionSummary(BaseModel):
    """A revision in a list."""

    id: str
    domain_set: str
    number: int
    domains: int
    created_at: Time


class DomainSetView(BaseModel):
    """A domain set and its latest revision's number."""

    id: str
    name: str
    revisions: int
    created_at: Time
