"""The content key of documents, as the shard that holds them has it."""

from collections.abc import Iterable

from proxy_models.text.held_out import ContentKey, document_digest


def content_key(documents: Iterable[str]) -> str:
    key = ContentKey()
    for document in documents:
        key.add(document_digest(document))
    return key.hexadecimal
