"""Requests and answers about domain sets."""

from pydantic import BaseModel, Field, model_validator

from service.schemas import FailureView, Name, ProgressView, RequestModel, Time


class TokenizerRequest(RequestModel):
    """A byte-level BPE trained on the domains themselves, or any Hugging Face tokenizer."""

    vocabulary_size: int | None = Field(default=None, ge=512, le=262_144)
    huggingface: str | None = Field(default=None, min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _one_of_them(self) -> "TokenizerRequest":
        if (self.vocabulary_size is None) == (self.huggingface is None):
            raise ValueError("give either vocabulary_size or huggingface")
        return self


class DomainRequest(RequestModel):
    """One leaf: its name, its files, and its size when it is known (the files may be a sample of it)."""

    name: str = Field(max_length=255)
    files: list[str] = Field(min_length=1, max_length=10_000)
    tokens: int | None = Field(default=None, gt=0, lt=2**63)
    size_bytes: int | None = Field(default=None, gt=0, lt=2**63)


class RevisionRequest(RequestModel):
    """A whole tree of domains."""

    domains: list[DomainRequest] = Field(min_length=2)


class DomainSetRequest(RevisionRequest):
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


class DomainView(BaseModel):
    """A leaf and what counting its files found; ``tokens`` is the N_j the mathematics uses."""

    name: str
    files: list[str]
    declared_tokens: int | None
    declared_bytes: int | None
    tokens: int | None
    size_bytes: int | None
    documents: int | None
    held_out_bytes: int | None
    content_hash: str | None
    state: str
    progress: ProgressView | None
    failure: FailureView | None


class ChangesView(BaseModel):
    """What a revision changed against its parent, by domain name."""

    added: list[str]
    removed: list[str]
    revised: list[str]


class RevisionView(BaseModel):
    """One immutable revision and the state of its preparation."""

    id: str
    domain_set: str
    number: int
    parent: int | None
    state: str
    progress: ProgressView
    tokenizer: dict[str, object]
    vocabulary_size: int | None
    held_out_fraction: float
    evaluation_bytes: int
    tokens: int | None
    changes: ChangesView
    domains: list[DomainView]
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
