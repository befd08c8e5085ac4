import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from proxy_models.errors import TokenizerError
from proxy_models.text.tokenizer import END_OF_TEXT, load_tokenizer, train_byte_level_bpe
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


def test_a_failed_load_says_what_failed(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"broken\.json is not a tokenizer\.json"):
        load_tokenizer(tmp_path / "broken.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TokenizerError, match=r"neither a tokenizer\.json, a Hugging Face folder"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(TokenizerError, match="257"):
        train_byte_level_bpe(["text"], 100, tmp_path / "small.json")
