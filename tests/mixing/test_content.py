import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.change.revision import combined, is_additive
from mixing.errors import InvalidContent


def key(texts: list[bytes]) -> str:
    total = sum(int(hashlib.sha256(text).hexdigest(), 16) for text in texts)
    return f"{total % 2**256:064x}"


@given(st.lists(st.lists(st.binary(max_size=8), max_size=5), max_size=5))
def test_keys_of_parts_combine_to_the_key_of_all_their_documents(parts: list[list[bytes]]) -> None:
    assert combined(key(part) for part in parts) == key([text for part in parts for text in part])


def test_sums_wrap_around_at_two_to_the_256() -> None:
    assert combined(["f" * 64, "0" * 63 + "2"]) == "0" * 63 + "1"


@pytest.mark.parametrize("content", [None, "", "sha256:" + "0" * 64, "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_64_lowercase_hexadecimal_digits_add_up(content: str | None) -> None:
    assert not is_additive(content)


def test_a_key_that_does_not_add_up_is_named() -> None:
    with pytest.raises(InvalidContent, match="md5:1"):
        combined(["0" * 64, "md5:1"])
