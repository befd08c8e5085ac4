import gzip
import json
from pathlib import Path

import pytest

from service.demo import sources as text
from service.demo.packages import CorporaError, read_members
from tests.service.demo.conftest import write_tar

SERVICE = {
    "metadata": {"serviceId": "Q"},
    "operations": {
        "Send": {
            "name": "Send",
            "documentation": '<p>Sends a <a href="x">message</a> &amp; waits.</p>',
            "input": {"shape": "M"},
        }
    },
    "shapes": {"M": {"type": "structure", "members": {"Body": {"documentation": "<p>The body.</p>"}}}},
}
CATALOGUE = """
msgid ""
msgstr ""
"Project-Id-Version: Plone\\n"

msgid "Could not save"
msgstr ""
"Konnte nicht "
"\\"gespeichert\\" werden"

msgid "Yes"
msgstr "Ja"

msgid "${n} files"
msgid_plural "${n} files"
msgstr[0] "Eine einzige Datei"
msgstr[1] "Mehrere Dateien hier"
"""


def test_translations_are_the_translated_strings_alone() -> None:
    assert list(text.translations(CATALOGUE.encode())) == [
        'Konnte nicht "gespeichert" werden\nEine einzige Datei\nMehrere Dateien hier'
    ]


def test_a_service_model_is_divided_into_schema_and_prose() -> None:
    content = gzip.compress(json.dumps(SERVICE).encode())
    assert list(text.api_documentation(content)) == [
        "Send\n\nSends a message & waits.",
        "M\n\nThe body.",
    ]
    (schema,) = text.api_schema(content)
    assert json.loads(schema)["shapes"] == {"M": {"type": "structure", "members": {"Body": {}}}}


def test_dictionary_entries_keep_words_and_senses_without_source_marks() -> None:
    entry = {
        "pos": [
            {
                "part_of_speech": "n.",
                "definitions": [{"text": "A tone.  [1913 Webster]"}, {"text": "A grade."}],
            }
        ]
    }
    assert list(text.dictionary_entries(json.dumps({"e": entry, "f": {"pos": []}}).encode())) == [
        "e: n. A tone. n. A grade."
    ]


def test_chapters_begin_where_the_index_says() -> None:
    verses = "In the beginning. It was good. Thus they were finished."
    source = (
        f'bible = Bible(\n    """{verses}""",\n    {{\n        1001001: 0,\n        1001002: 18,\n'
        "        1002001: 31,\n    },\n)\n"
    )
    assert list(text.chapters(source.encode())) == [
        "In the beginning. It was good. ",
        "Thus they were finished.",
    ]


def test_a_license_reads_as_its_original() -> None:
    template = (
        "Copyright <<var;name=c;original=ACME;match=.+>>.<<beginOptional;name=x>> No warranty.<<endOptional>>"
    )
    assert list(text.license_text(template.encode())) == ["Copyright ACME. No warranty."]


def test_every_piece_of_a_table_has_its_header() -> None:
    rows = [f"{number},x" for number in range(100)]
    tables = list(text.table_rows("\r\n".join(["n,v", *rows]).encode()))
    assert [table.split("\n")[0] for table in tables] == ["n,v", "n,v"]
    assert [row for table in tables for row in table.split("\n")[1:]] == rows


def test_pieces_are_short_lose_no_word_and_prefer_paragraphs() -> None:
    paragraph = "alpha beta gamma delta\nepsilon"
    whole = "\n\n".join([paragraph] * 10)
    cut = list(text.pieces(whole, 70))
    assert max(map(len, cut)) <= 70
    assert " ".join(cut).split() == whole.split()
    assert cut[0] == f"{paragraph}\n\n{paragraph}"
    assert list(text.pieces("x" * 100, 40)) == ["x" * 40, "x" * 40, "x" * 20]


def test_members_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "p.tar.gz", {"p/b.txt": b"2", "p/a.txt": b"1", "p/a.md": b"0"})
    assert list(read_members(archive, r"p/.*\.txt")) == [("p/a.txt", b"1"), ("p/b.txt", b"2")]
    with pytest.raises(CorporaError, match="no file that matches"):
        list(read_members(archive, "q"))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p-1-py3-none-any.whl"
    path.write_bytes(b"not a zip")
    with pytest.raises(CorporaError, match=r"p-1-py3-none-any\.whl is damaged"):
        list(read_members(path, ".*"))
