from mixing import errors

CODES = """
invalid_domain_name duplicate_domain unknown_domain missing_domain invalid_tokens too_few_domains invalid_weights
unknown_method invalid_setting not_heeded never_met too_few_runs invalid_metrics duplicate_run opposite_directions
invalid_lineage unknown_revision invalid_content ambiguous_change invalid_answer split_mismatch merge_mismatch
infeasible
"""


def test_the_codes_that_machines_read_stay_as_they_are() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, errors.MixingError)}
    assert codes == {"invalid_input", *CODES.split()}
