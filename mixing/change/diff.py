"""What changed between two revisions: found from names and contents, asked where these leave it open.

In this order:

1. The same name with the same text is kept. Where neither side's content is known, equal token counts have to do.
2. Among the rest a text that one old and one new domain hold is kept under its new name. Content wins over name: of
   two domains that swapped names, both are renamed and neither is revised. So renaming or shuffling domains changes
   nothing.
3. Texts that add up are a split or a merge (`mixing.change.conservation`).
4. What names or token counts suggest, without content to prove it, is asked. Different contents suggest nothing.
5. What is left under one name was revised; the rest was removed and added.
"""

from collections.abc import Iterator, Mapping

from mixing.change.conservation import check_merge, check_split
from mixing.change.matching import Matching, match_sums, match_unique_contents, nested, same_text
from mixing.change.renames import Answers, ask_equal_contents, ask_renames
from mixing.change.revision import Changes, Leaves, check_leaves


def diff(old: Leaves, new: Leaves, said: Mapping[str, str] | None = None) -> Changes:
    """The changes from `old` to `new`; none depends on the order domains are given in.

    Time is linear in the number of domains, apart from sorting.

    Args:
        old: domains of the older revision; none for the first revision.
        new: domains of the newer one.
        said: `{domain: word}`, answers to the questions of an earlier `AmbiguousChange`.

    Raises:
        AmbiguousChange: names and contents leave something open; it carries the questions.
        InvalidAnswer: an answer that is no candidate, was not asked for, or excludes another.
        UnknownDomain: an answer about a domain that neither revision has.
        SplitMismatch: a split was said whose parts are not together the parent; `MergeMismatch` likewise.
        InvalidDomainName: names that make no tree.
        InvalidTokens: a count that is not positive and finite.

    >>> from mixing.change.revision import Leaf
    >>> before = {"web": Leaf(6e9, "text of web"), "books": Leaf(1e9, "text of books")}
    >>> after = {"web": Leaf(6e9, "text of web"), "code": Leaf(2e9, "text of code")}
    >>> changes = diff(before, after)
    >>> changes.added, changes.removed
    (('code',), ('books',))
    """
    check_leaves(old)
    check_leaves(new)
    answers = Answers(said or {}, {*old, *new})
    matching = Matching.of(old, new)
    _match_names(matching, answers)
    match_unique_contents(matching)
    match_sums(matching)
    ask_equal_contents(matching, answers)
    _ask_splits(matching, answers)
    _ask_merges(matching, answers)
    ask_renames(matching, answers)
    answers.finish()
    return matching.changes()


def _match_names(matching: Matching, answers: Answers) -> None:
    for name in [name for name in matching.old if name in matching.new]:
        same = same_text(matching.old[name], matching.new[name])
        if same is None:
            same = _said_kept(name, answers)
        if same:
            matching.keep(name, name)


def _said_kept(name: str, answers: Answers) -> bool:
    """Whether `name` holds the same text; a question that stays open counts as yes, so that nothing hangs on it."""
    candidates = (("kept", "it holds the same text"), ("revised", "it holds another text now"))
    question = (
        f"Does {name!r} hold the same text as before? Only one of the two revisions tells what it holds."
    )
    return answers.ask(name, question, candidates) != "revised"


def _ask_splits(matching: Matching, answers: Answers) -> None:
    for parent, parts in _under(matching.removed, matching.added):
        candidates = (
            ("split", "its parts hold together its text"),
            ("separate", "it is removed and the domains under its name are new"),
        )
        question = f"{parent!r} is gone and there are {len(parts)} domains under its name: was it split?"
        answers.settle(parent, *parts)
        word = answers.ask(parent, question, candidates)
        if word == "split":
            leaves = {part: matching.new[part] for part in parts}
            check_split(parent, matching.old[parent], leaves, field="said")
        if word != "separate":
            matching.divide(parent, parts)


def _ask_merges(matching: Matching, answers: Answers) -> None:
    for name, sources in _under(matching.added, matching.removed):
        candidates = (
            ("merge", "it holds together the text of those that were under its name"),
            ("separate", "it is a new domain, and those that were under its name are removed"),
        )
        question = (
            f"{name!r} is new and {len(sources)} domains under its name are gone: is it merged from them?"
        )
        answers.settle(name, *sources)
        word = answers.ask(name, question, candidates)
        if word == "merge":
            leaves = {source: matching.old[source] for source in sources}
            check_merge(name, matching.new[name], leaves, field="said")
        if word != "separate":
            matching.unite(name, sources)


def _under(above: Leaves, below: Leaves) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each name that two or more of the others lie under, with these."""
    groups = nested(below)
    for name in above:
        if len(group := groups.get(name, ())) > 1:
            yield name, group
