"""A mixture a phase: stages begin where they were asked for, and caps hold over all of them."""

from dataclasses import replace

import pytest
import yaml

from exchange.formats import Blend, InvalidExport, export_schedule

RUN = {"path": "/data/{domain}", "sequence_length": 128, "batch_rows": 512}
STEP = 128 * 512
TOKENS = {"web": 1e9, "math": 4e6, "code": 1e9}


def phases(**late: float) -> list[Blend]:
    early = Blend.of(
        {"web": 0.875, "math": 0.125}, target_tokens=400 * STEP, tokens=_of("web", "math"), **RUN
    )
    weights = late or {"web": 0.25, "code": 0.75}
    return [early, Blend.of(weights, target_tokens=100 * STEP, tokens=_of(*weights), **RUN)]


def _of(*names: str) -> dict[str, float]:
    return {name: TOKENS[name] for name in names}


def test_levanter_has_every_domain_in_every_stage_which_begins_at_the_end_of_a_block() -> None:
    made = export_schedule(phases(), "levanter")
    told = yaml.safe_load(made.files["data.yaml"])["data"]
    assert set(told["components"]) == {"web", "math", "code"}
    (first, early), (second, late) = told["train_weights"]
    assert (first, second) == (0, 400)
    assert second * 512 % told["mixture_block_size"] == 0
    assert early == {"math": 0.125, "web": 0.875, "code": 0.0}
    assert late == {"math": 0.0, "web": 0.25, "code": 0.75}


def test_nanotron_s_stages_begin_at_their_steps() -> None:
    stages = yaml.safe_load(export_schedule(phases(), "nanotron").files["data_stages.yaml"])["data_stages"]
    assert [stage["start_training_step"] for stage in stages] == [1, 401]
    assert stages[1]["data"]["dataset"]["dataset_weights"] == [0.75, 0.25]


def test_the_report_adds_the_phases_up() -> None:
    made = export_schedule(phases(), "levanter")
    assert made.whole.tokens["web"] == pytest.approx((400 * 0.875 + 100 * 0.25) * STEP)
    assert made.whole.asked == pytest.approx({"web": 0.75, "math": 0.1, "code": 0.15})
    assert made.whole.largest_error < 1e-9


def test_a_cap_holds_over_all_phases_together() -> None:
    early, late = phases(math=1.0)
    with pytest.raises(InvalidExport, match=r"math 2\.4"):
        export_schedule([early, replace(late, repetition_cap=2)], "levanter")


def test_a_trainer_of_one_mixture_has_a_folder_a_phase_and_another_order_in_each() -> None:
    made = export_schedule(phases(), "streaming")
    assert list(made.files) == ["phase-0/train_loader.yaml", "phase-1/train_loader.yaml"]
    told = [yaml.safe_load(text)["train_loader"]["dataset"] for text in made.files.values()]
    assert [each["shuffle_seed"] for each in told] == [0, 1]
    assert {name: stream["choose"] for name, stream in told[1]["streams"].items()} == {
        "web": 100 * 512 // 4,
        "code": 100 * 512 * 3 // 4,
    }
    assert made.whole.tokens["web"] == (400 * 0.875 + 100 * 0.25) * STEP


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [
        (phases()[:1], "levanter", "two phases"),
        (
            [phases()[0], Blend.of({"web": 1.0}, path="/x", batch_rows=8, target_tokens=10**6)],
            "levanter",
            "batches",
        ),
        ([phases()[0], Blend.of({"web": 1.0}, **RUN)], "levanter", "target_tokens"),
    ],
)
def test_what_is_no_schedule_is_refused(given: list[Blend], name: str, said: str) -> None:
    with pytest.raises(InvalidExport, match=said):
        export_schedule(given, name)
