import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from proxy_models.errors import TokenizerError
from proxy_models.text import tokenizer as words
from proxy_models.text.tokenizer import END_OF_TEXT, TextTokenizer, load_tokenizer, train_byte_level_bpe
from tests.proxy_models.conftest import Pool

ROOT = Path(__file__).parents[2]


def test_training_gives_the_same_bytes_in_another_process(pool: Pool, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from proxy_models.text.preparation import training_sample\n"
        "from proxy_models.text.tokenizer import train_byte_level_bpe\n"
        "files = tuple(map(Path, sys.argv[2:]))\n"
        "train_byte_level_bpe(training_sample(files, 0.05, 150_000), 512, Path(sys.argv[1]))\n"
    )
    other = tmp_path / "other.json"
    files = [str(file) for file in pool.files.values()]
    subprocess.run([sys.executable, "-c", code, str(other), *files], check=True, cwd=ROOT)
    assert other.read_bytes() == pool.tokenizer_path.read_bytes()
    assert load_tokenizer(other).fingerprint == pool.tokenizer.fingerprint


def test_any_text_comes_back_and_special_tokens_in_text_stay_text(pool: Pool) -> None:
    text = f"Ünïcode ☃ \x01 \t\n\n  {END_OF_TEXT} 漢字"
    ids = pool.tokenizer.encode(text)
    assert pool.tokenizer.decode(ids) == text
    assert pool.tokenizer.end_of_text not in ids
    assert pool.tokenizer.vocabulary_size == 512


def test_a_hugging_face_folder_loads_to_the_same_ids(pool: Pool, tmp_path: Path) -> None:
    fast = PreTrainedTokenizerFast(tokenizer_file=str(pool.tokenizer_path), eos_token=END_OF_TEXT)
    fast.save_pretrained(tmp_path / "folder")
    loaded = load_tokenizer(str(tmp_path / "folder"))
    assert loaded.encode("import os\n") == pool.tokenizer.encode("import os\n")
    assert loaded.end_of_text == pool.tokenizer.end_of_text


def whole(tokenizer: TextTokenizer, texts: list[str]) -> list[list[int]]:
    """The ids that the library gives, all of a text at once."""
    return [one.ids for one in tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)]


def test_the_words_of_a_text_are_those_of_the_library_for_every_character(pool: Pool) -> None:
    characters = [chr(code) for code in range(2**16) if not 0xD800 <= code < 0xE000]
    texts = [
        "".join(f"a{one}1 {one}{one}!" for one in characters[begin : begin + 64])
        for begin in range(0, len(characters), 64)
    ]
    split, foreign = words._patterns()
    before = pre_tokenizers.ByteLevel(add_prefix_space=False)
    safe = [text for text in texts if not foreign.search(text)]
    assert len(safe) > len(texts) / 2
    for text in safe:
        assert split.findall(text) == [text[begin:end] for _, (begin, end) in before.pre_tokenize_str(text)]


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("ab '\n\t1é😀")), max_size=6)
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_of_words_are_those_of_whole_texts(pool: Pool, texts: list[str]) -> None:
    assert pool.tokenizer.words is not None
    expected = whole(pool.tokenizer, texts)
    assert pool.tokenizer.encode_batch(texts) == expected
    assert pool.tokenizer.encode_batch(texts) == expected, "remembered"


def test_words_are_forgotten_before_they_fill_memory(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", 50)
    tokenizer = load_tokenizer(pool.tokenizer_path)
    assert tokenizer.words is not None
    for begin in range(20):
        texts = [" ".join(f"{begin}word{number}" for number in range(9)) + "x" * 100]
        assert tokenizer.encode_batch(texts) == whole(tokenizer, texts)
        assert len(tokenizer.words.ids) <= 50
        assert max(map(len, tokenizer.words.ids)) <= words.LONGEST_WORD


def test_a_tokenizer_that_does_more_to_a_text_is_asked_for_the_whole(pool: Pool) -> None:
    for change in (
        lambda one: setattr(one, "normalizer", normalizers.Lowercase()),
        lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda one: one.add_tokens(["import os"]),
        lambda one: setattr(one.model, "dropout", 0.1),
    ):
        backend = tokenizers.Tokenizer.from_file(str(pool.tokenizer_path))
        change(backend)
        tokenizer = TextTokenizer(backend, 0)
        assert tokenizer.words is None
        if backend.model.dropout is None:
            assert tokenizer.encode_batch(["Import OS, import os"]) == whole(
                tokenizer, ["Import OS, import os"]
            )


def test_a_failed_load_says_what_failed(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"broken\.json is not a tokenizer\.json"):
        load_tokenizer(tmp_path / "broken.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TokenizerError, match=r"neither a tokenizer\.json, a Hugging Face folder"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(TokenizerError, match="257"):
        train_byte_level_bpe(["text"], 100, tmp_path / "small.json")
