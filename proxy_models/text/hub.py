"""A tokenizer of the Hugging Face hub: fetched once, at one commit, and from then on an artifact like one of ours."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from proxy_models.errors import TokenizerError
from proxy_models.storage import new_directory
from proxy_models.stores.current import is_here
from proxy_models.text.token_files import TOKENIZER_FILES

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class FetchedTokenizer:
    """The folder it is kept in, the commit it is of, and where that is shown."""

    directory: Path
    commit: str
    address: str


def fetch_tokenizer(
    name: str, revision: str | None, directory: Path, endpoint: str | None = None
) -> FetchedTokenizer:
    """Fetch the tokenizer of a hub name into ``directory``, unless that commit of it is there or in the store.

    ``revision`` is a commit, a branch or a tag; None is the main branch. What it names now is the commit that counts
    from here on. ``endpoint`` is the hub's address, if not the usual one. Raises `TokenizerError` where the hub does
    not have it or does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download

    hub = HfApi(endpoint=endpoint)
    try:
        pinned = revision is not None and _COMMIT.fullmatch(revision)
        commit = str(revision if pinned else hub.model_info(name, revision=revision).sha)
        kept = directory / f"{name.replace('/', '--')}@{commit}"
        if is_here(kept):
            return FetchedTokenizer(kept, commit, f"{hub.endpoint}/{name}/tree/{commit}")
        files = [*TOKENIZER_FILES, "config.json"]
        with TemporaryDirectory(prefix="mixwright-hub-") as cache:
            fetched = snapshot_download(
                name, revision=commit, allow_patterns=files, cache_dir=cache, endpoint=hub.endpoint
            )
            with new_directory(kept) as made:
                for file in Path(fetched).iterdir():
                    shutil.copyfile(file, made / file.name)
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TokenizerError(f"{name!r} cannot be fetched from the hub: {reason}") from error
    return FetchedTokenizer(kept, commit, f"{hub.endpoint}/{name}/tree/{commit}")
