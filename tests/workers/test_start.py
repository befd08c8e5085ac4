"""A run starts from the files that were checked when it was asked for, or not at all."""

import os
from pathlib import Path

import pytest

from proxy_models.families.start import read_start
from proxy_models.stores.object_path import file_identity
from service.training.checks import check_vocabulary
from store.documents import ModelDocument
from store.files import identity_hash
from store.problems import Invalid
from tests.service.test_families import save_ours
from workers.claims.failures import JobError
from workers.jobs.training import unchanged_start


def test_a_checkpoint_that_was_changed_or_removed_since_is_not_started_from(tmp_path: Path) -> None:
    folder = save_ours(tmp_path / "model", learning_rate=1e-4, tokens=10)
    content = identity_hash(map(file_identity, read_start(folder).files))
    training = ModelDocument(start=str(folder), start_content=content)
    assert unchanged_start(training) == str(folder)
    assert unchanged_start(ModelDocument(size="nano-0.1M")) is None  # stored before there were starts
    os.utime(folder / "model.safetensors", ns=(1, 1))
    with pytest.raises(JobError, match="was changed") as caught:
        unchanged_start(training)
    assert (caught.value.code, caught.value.retryable) == ("data_changed", False)
    (folder / "config.json").unlink()
    with pytest.raises(JobError, match="is gone"):
        unchanged_start(training)


def test_another_vocabulary_than_the_tokenizers_is_refused_where_that_is_known(tmp_path: Path) -> None:
    start = read_start(save_ours(tmp_path / "model"))  # of 512 tokens
    for fine in (None, 512, 400):
        check_vocabulary(start, fine, "proxy.start")
    for misfit in (513, 300):
        with pytest.raises(Invalid) as caught:
            check_vocabulary(start, misfit, "proxy.start")
        assert (caught.value.code, caught.value.field) == ("unfit_start", "proxy.start")
