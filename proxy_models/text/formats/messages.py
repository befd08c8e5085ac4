"""Chat messages as text, each by one template: as supervised data of Tulu and Dolci, or of ShareGPT, has them."""

from collections.abc import Mapping

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath

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
