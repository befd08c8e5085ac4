from proxy_models import errors
from proxy_models.planning.calibration import UnreadableCalibration

CODES = """
bad_path cancelled corpus_error data_changed data_missing diverged invalid_spec missing_domain no_choices
not_calibrated not_enough_memory checksum_differs over_cap proxy_error stopped storage_failed store_denied store_error
store_misconfigured store_unreachable tokenizer_error too_little_text too_many_files unequal_wave unfit_start
unknown_domain unknown_size
"""


def test_the_codes_that_machines_read_stay_as_they_are() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.code for kind in kinds if issubclass(kind, errors.ProxyError)} == {*CODES.split()}
    assert UnreadableCalibration.code == "unreadable_calibration"
    assert errors.ObjectMissing.code == errors.DataMissing.code, "gone is gone, wherever it lay"
