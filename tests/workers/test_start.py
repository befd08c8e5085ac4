"""A run starts from the files that were checked when it was asked for, or not at all."""

import os
from pathlib import Path

import pytest

from proxy_models.errors import DataChanged
from proxy_models.families.start import read_start
from proxy_models.stores.object_path import file_identity
from service.training.checks import check_vocabulary
from store.documents import ModelDocument
from store.files import identity_hash
from store.problems import Invalid
from store.settings import Settings
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
    with pytest.raises(DataChanged, match="was changed") as caught:
        unchanged_start(training)
    assert (caught.value.code, caught.value.retryable) == ("data_changed", False)
    (folder / "config.json").unlink()
    with pytest.raises(JobError, match="is gone"):
        unchanged_start(training)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.json", ""])
def test_a_checkpoint_that_leads_outside_by_now_is_not_started_from(tmp_path: Path, name: str) -> None:
    """Whoever can write below a root may exchange it after it was checked, for one of the same size and time."""
    settings = Settings(data_directory=tmp_path / "data", data_roots=str(tmp_path / "root"))
    folder = save_ours(tmp_path / "root" / "model", learning_rate=1e-4, tokens=10)
    training = ModelDocument(
        start=str(folder), start_content=identity_hash(map(file_identity, read_start(folder).files))
    )
    with settings.reading():
        assert unchanged_start(training) == str(folder)
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with settings.reading(), pytest.raises(JobError, match="leads outside the data roots"):
        unchanged_start(training)
    assert unchanged_start(training) == str(folder), "without roots it is the same model"


def test_another_vocabulary_than_the_tokenizers_is_refused_where_that_is_known(tmp_path: Path) -> None:
    start = read_start(save_ours(tmp_path / "model"))  # of 512 tokens
    for fine in (None, 512, 400):
        check_vocabulary(start, fine, "proxy.start")
    for misfit in (513, 300):
        with pytest.raises(Invalid) as caught:
            check_vocabulary(start, misfit, "proxy.start")
        assert (caught.value.code, caught.value.field) == ("unfit_start", "proxy.start")
