"""What is said about reading a domain's files; the rest is told by their content. Free of torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath

PlainText = Literal["text", "lines"]
Copies = Literal["keep", "drop", "drop_shared"]


@dataclass(frozen=True)
class Reading:
    """How the documents of a domain are found in its files.

    Attributes:
        text_field: member or column that holds the text; a dot leads into a nested one, ``"raw.content"``.
        format: None is told by content. ``"text"`` reads every file as the plain text it is (JSON and CSV too, for a
            domain of such files), ``"lines"`` likewise with one document a line.
        chat: template of one message, ``"<|{role}|>\\n{content}\\n"``, or the name of one (`CHAT_TEMPLATES`); the
            text is then a list of messages, by default the member or column ``messages``.
        max_bytes: of text that are read, about: of every file the beginning, as long as is its part of all bytes.
        bad_lines: share of a domain's lines, rows and elements that may be none of a document, and are passed over.
        held_out_fraction: of this domain's text; None for the domain set's. What one domain holds out another that
            holds out less may train on, where both have it.
        copies: what becomes of a document that the domain has already: "keep" it, or "drop" it; "drop_shared" drops
            also what another domain of the set holds.

    >>> Reading(text_field="content").said
    {'text_field': 'content'}
    """

    text_field: str = "text"
    format: PlainText | None = None
    chat: str | None = None
    max_bytes: int | None = None
    bad_lines: float = 0.0
    held_out_fraction: float | None = None
    copies: Copies = "keep"

    @property
    def member(self) -> str:
        """Where the text, or the list of messages, is."""
        return "messages" if self.chat is not None and self.text_field == "text" else self.text_field

    @property
    def said(self) -> dict[str, object]:
        """What differs from the defaults: what is stored, and part of a shard's key, which older ones lack."""
        return {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}

    @classmethod
    def of(cls, said: Mapping[str, object] | None) -> "Reading":
        """The reading that `said` came from; None is the default."""
        return cls(**said) if said else cls()  # type: ignore[arg-type]


_DEFAULTS = {field.name: field.default for field in fields(Reading)}
BY_CONTENT = Reading()


# Chat messages as text, each by one template: as supervised data of Tulu and Dolci, or of ShareGPT, has them.

CHAT_TEMPLATES = {
    "tulu": "<|{role}|>\n{content}\n",
    "chatml": "<|im_start|>{role}\n{content}<|im_end|>\n",
}
"""Of open-instruct (`tulu`, its end-of-text is that of the document) and of ChatML, by name."""
_ROLES, _CONTENTS = ("role", "from"), ("content", "value")


def rendered(path: DataPath, number: int, messages: object, template: str) -> str:
    """The messages one after another, `{role}` and `{content}` of the template filled in.

    Raises `CorpusError` naming file, line and message where there is no list of messages with text.
    """
    if not isinstance(messages, list) or not messages:
        raise CorpusError(path, number, "has no list of messages")
    template = CHAT_TEMPLATES.get(template, template)
    before, _, rest = template.partition("{content}")
    return "".join(
        before.replace("{role}", role) + content + rest.replace("{role}", role)
        for role, content in (_message(path, number, at, one) for at, one in enumerate(messages, 1))
    )


def _message(path: DataPath, number: int, at: int, message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise CorpusError(path, number, f"its message {at} is no object")
    role = next((message[name] for name in _ROLES if message.get(name) is not None), None)
    content = next((message[name] for name in _CONTENTS if message.get(name) is not None), None)
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):  # in parts
        texts = [part.get("text") for part in content]
        content = "".join(texts) if all(isinstance(text, str) for text in texts) else None
    if not isinstance(role, str) or not isinstance(content, str):
        raise CorpusError(path, number, f"its message {at} has no text as 'role' and 'content'")
    return role, content
