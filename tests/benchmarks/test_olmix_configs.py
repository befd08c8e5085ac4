import os
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.olmix_configs import (
    MORE_SOURCES,
    PARTITIONED_PDFS,
    REVISED_PDFS,
    STACK_EDU,
    case_study,
    invariants,
    read_case_study,
    read_config,
)
from benchmarks.olmix_file import OlmixConfigError
from benchmarks.revision_maps import Step, carry_along
from mixing.change.diff import diff
from mixing.change.patch import Patch, apply_patch
from mixing.errors import AmbiguousChange, SplitMismatch

SOUND = """\
swarm:
  ratios: ratios.csv
priors:
  relative_sizes:
    existing: 0.75
    web:a: 0.25
  token_counts:
    existing: 300
    web:a: 1_000
regression:
  type: log_linear
proposer:
  kl_reg: 0.05
constraints:
  target_tokens: 1_000_000
  repetition_factor: 4.0
filtering:
  drop_metrics: ["one",
    "two:rc::three"]
"""
MISPLACED = SOUND.replace("  token_counts:", "token_counts:")


def written(directory: Path, text: str) -> Path:
    path = directory / "update.yaml"
    path.write_text(text)
    return path


def test_a_configuration_is_read_by_name(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, SOUND))
    assert (config.name, config.tokens) == ("update", {"existing": 300, "web:a": 1000})
    assert config.relative_sizes == {"existing": 0.75, "web:a": 0.25}
    assert (config.target_tokens, config.repetition_factor, config.kl) == (10**6, 4.0, 0.05)
    assert (config.drop_metrics, config.regression, config.notes) == (
        ("one", "two:rc::three"),
        "log_linear",
        (),
    )
    assert read_config(written(tmp_path, SOUND.replace("0.05", "null"))).kl is None


def test_misplaced_token_counts_are_named_with_file_line_and_the_place_they_belong(tmp_path: Path) -> None:
    path = written(tmp_path, MISPLACED)
    with pytest.raises(OlmixConfigError) as caught:
        read_config(path)
    assert str(caught.value) == (
        f"{path}:7: 'token_counts' stands at the top level, but belongs under 'priors' (line 3): indent it there"
    )
    assert (caught.value.file, caught.value.line) == (str(path), 7)


def test_misplaced_token_counts_can_be_read_where_they_stand_and_are_noted(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, MISPLACED), frozenset({"token_counts"}))
    assert config.tokens == {"existing": 300, "web:a": 1000}
    assert ["update.yaml:7:" in note and "'priors'" in note for note in config.notes] == [True]


def test_a_search_is_no_regression_and_a_note_says_where_it_stands(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, SOUND.replace("log_linear", "search")))
    assert config.regression is None
    assert ["update.yaml:11: regression.type is 'search'" in note for note in config.notes] == [True]


@pytest.mark.parametrize(
    ("right", "wrong", "line", "says"),
    [
        ("web:a: 1_000", "web:a: many", 9, "priors.token_counts.web:a is 'many'"),
        ("web:a: 1_000", "web:a: -5", 9, "whole number above 0"),
        ("web:a: 1_000", "web:a: true", 9, "whole number above 0"),
        ("web:a: 1_000", "web:a: !!python/name:os.system", 9, "no plain value"),
        ("web:a: 1_000", "web:b: 1_000", 3, "name different domains: web:a, web:b"),
        ("web:a: 0.25", "web:a: 0.5", 3, "sum to 1.25"),
        ("web:a: 1_000", "existing: 1_000", 9, "'existing' stands in line 8 already"),
        ("  kl_reg: 0.05", "  temperature: 1", 12, "'kl_reg' is missing"),
        ("constraints:", "constraint:", 14, "'constraint' is no section"),
        ("  repetition_factor: 4.0\n", "", 14, "'repetition_factor' is missing"),
        ('["one",', '"one" [', 18, "no YAML"),
        ('["one",\n    "two:rc::three"]', "one", 18, "filtering.drop_metrics must be a list"),
        ("filtering:\n", "", 17, "'drop_metrics' stands under 'constraints', but belongs under 'filtering'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, right: str, wrong: str, line: int, says: str
) -> None:
    assert right in SOUND
    with pytest.raises(OlmixConfigError, match=says) as caught:
        read_config(written(tmp_path, SOUND.replace(right, wrong)))
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "says"), [("", "is empty"), (SOUND.split("filtering")[0], "'filtering' is missing")]
)
def test_what_is_missing_is_named_with_its_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OlmixConfigError, match=rf"update\.yaml: .*{says}"):
        read_config(written(tmp_path, text))
    with pytest.raises(OlmixConfigError, match=r"nowhere\.yaml: cannot be read"):
        read_config(tmp_path / "nowhere.yaml")


@pytest.fixture
def published() -> Path:
    directory = os.environ.get("MIXWRIGHT_OLMIX_DATA")
    if not directory:
        pytest.skip(
            "NOT TESTED: the published configurations; MIXWRIGHT_OLMIX_DATA names no folder that holds them"
        )
    return Path(directory)


def test_the_published_update_that_is_malformed_is_refused_and_only_that(published: Path) -> None:
    with pytest.raises(OlmixConfigError, match=rf"{STACK_EDU}:23: 'token_counts'.*'priors' \(line 5\)"):
        read_config(published / STACK_EDU)
    noted = {file: len(config.notes) for file, config in read_case_study(published).items()}
    assert {file for file, notes in noted.items() if notes} == {STACK_EDU, REVISED_PDFS}
    assert read_config(published / REVISED_PDFS).regression is None


def test_the_published_counts_of_everything_else_add_up_step_by_step(published: Path) -> None:
    gaps = [invariant.gap for invariant in invariants(read_case_study(published))]
    # DCLM is rounded to 5 T; the topics of the PDFs lack 3.5% of the PDFs.
    assert gaps == [13, 0, 0, 0, 1_034_238_607_178 - 997_705_734_314]


def test_the_case_study_is_a_chain_of_revisions(published: Path) -> None:
    chain = case_study(published)
    names = [
        "dclm",
        "add_stackedu",
        "add_more_sources",
        "revise_pdfs",
        "remove_algebraicstack",
        "partition_pdfs",
    ]
    assert [name for name, _, _ in chain] == names
    assert [len(leaves) for _, leaves, _ in chain] == [24, 39, 45, 45, 44, 64]
    changes = [change for _, _, change in chain]
    assert [len(change.added) for change in changes] == [24, 15, 6, 0, 0, 21]
    assert changes[3].revised == {"s2pdfv1": "s2pdfv2"}
    assert [change.removed for change in changes] == [(), (), (), (), ("algebraicstack",), ("s2pdfv1",)]
    assert chain[3][1]["algebraicstack"].tokens == 11_818_955_329


def test_patches_make_the_same_revisions(published: Path) -> None:
    chain = case_study(published)
    for (_, before, _), (_, after, found) in pairwise(chain):
        if found.revised:
            continue  # a rename and a revision at once, which is two patches
        patch = Patch(add={name: after[name] for name in found.added}, remove=found.removed)
        leaves, changes = apply_patch(before, patch)
        assert leaves == dict(sorted(after.items()))
        assert changes == found


def test_the_revision_of_the_pdfs_is_asked_about_though_their_count_is_the_same(published: Path) -> None:
    chain = case_study(published)
    with pytest.raises(AmbiguousChange) as caught:
        diff(chain[2][1], chain[3][1])
    (question,) = caught.value.questions
    assert question.domain == "s2pdfv1"
    assert [word for word, _ in question.candidates] == ["rename", "revised", "separate"]


def test_the_topics_of_the_pdfs_are_no_split_and_separate_is_the_way_round(published: Path) -> None:
    (_, before, _), (_, after, separate) = case_study(published)[-2:]
    with pytest.raises(AmbiguousChange) as ambiguous:
        diff(before, after)
    assert ambiguous.value.names == ("s2pdfv1",)
    with pytest.raises(
        SplitMismatch, match=r"'s2pdfv1'.*997,705,734,314.*1,034,238,607,178.*-3\.53%"
    ) as caught:
        diff(before, after, {"s2pdfv1": "split"})
    assert (caught.value.parts, caught.value.whole) == (997_705_734_314, 1_034_238_607_178)
    assert (separate.removed, len(separate.added)) == (("s2pdfv1",), 21)
    topics = {name: after[name] for name in separate.added}
    with pytest.raises(SplitMismatch, match="s2pdfv1"):
        apply_patch(before, Patch(split={"s2pdfv1": topics}))


def test_a_mixture_over_the_topics_of_dclm_reaches_the_last_revision_whole(published: Path) -> None:
    chain = case_study(published)
    steps = [Step(changes, before, after) for (_, before, _), (_, after, changes) in pairwise(chain)]
    whole = carry_along(steps)
    assert whole.free == tuple(sorted(chain[0][1]))
    assert set(whole.leaves) == set(chain[-1][1])
    assert whole.matrix.sum() == 24


def test_configurations_hold_what_the_files_say(published: Path) -> None:
    configs = read_case_study(published)
    assert {(config.target_tokens, config.repetition_factor) for config in configs.values()} == {
        (10**12, 4.0)
    }
    assert [config.kl for config in configs.values()] == [0.05, 0.05, 0.05, None, 0.05]
    assert configs[MORE_SOURCES].affected["wikipedia"].tokens == 10_067_758_073
    assert len(configs[PARTITIONED_PDFS].tokens) == 22
