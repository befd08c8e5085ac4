"""What changed between two revisions: found from names and contents, asked where these leave it open.

In this order:

1. The same name with the same text is kept. Where neither side's content is known, equal token counts have to do.
2. Among the rest a text that one old and one new domain hold is kept under its new name. Content wins over name: of
   two domains that swapped names, both are renamed and neither is revised. So renaming or shuffling domains changes
   nothing.
3. Texts that add up are a split or a merge (`mixing.change.revision`).
4. What names or token counts suggest, without content to prove it, is asked. Different contents suggest nothing.
5. What is left under one name was revised; the rest was removed and added.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mixing.change.matching import Matching, holders, match_sums, match_unique_contents, nested, same_text
from mixing.change.revision import Changes, Leaf, Leaves, check_leaves, check_merge, check_split
from mixing.errors import AmbiguousChange, ChangeQuestion, InvalidAnswer, UnknownDomain

Candidates = tuple[tuple[str, str], ...]
"""Pairs of a word and a sentence that says what it means."""


class Answers:
    """Takes the questions as they arise, and answers those that something was said to.

    Args:
        said: `{domain: word}`.
        domains: the names of both revisions.

    Raises:
        UnknownDomain: an answer about a domain that neither revision has.
    """

    def __init__(self, said: Mapping[str, str], domains: Iterable[str]) -> None:
        if unknown := sorted(set(said) - set(domains)):
            raise UnknownDomain(
                f"something is said about domains that neither revision has: {', '.join(unknown)}",
                field="said",
                names=unknown,
            )
        self._words = dict(said)
        self._questions: dict[str, ChangeQuestion] = {}
        self._settled: set[str] = set()

    def ask(self, domain: str, question: str, candidates: Candidates) -> str | None:
        """The word said about `domain`, or None: then the question stays open.

        Raises:
            InvalidAnswer: the word is no candidate.
        """
        self._questions[domain] = ChangeQuestion(domain, question, candidates)
        word = self._words.get(domain)
        if word is not None and word not in (candidate for candidate, _ in candidates):
            words = [candidate for candidate, _ in candidates]
            raise InvalidAnswer(
                f"{word!r} is no answer to: {question} Say one of {', '.join(words[:10])}",
                field="said",
                names=[domain],
            )
        return word

    def settle(self, *domains: str) -> None:
        """What became of these is the subject of a question; no other question may offer them."""
        self._settled.update(domains)

    def unsettled(self, leaves: Leaves) -> dict[str, Leaf]:
        """Those that no question was about yet."""
        return {name: leaf for name, leaf in leaves.items() if name not in self._settled}

    def finish(self) -> None:
        """Pass if every question was answered and every answer was asked for.

        Raises:
            InvalidAnswer: something was said that nobody asked.
            AmbiguousChange: with the questions that are open.
        """
        if idle := sorted(set(self._words) - set(self._questions)):
            raise InvalidAnswer(
                f"nothing is open about {', '.join(idle)}: names and contents tell; leave the answer out",
                field="said",
                names=idle,
            )
        if left := [question for name, question in self._questions.items() if name not in self._words]:
            raise AmbiguousChange(left)


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
    _ask_equal_contents(matching, answers)
    _ask_splits(matching, answers)
    _ask_merges(matching, answers)
    _ask_renames(matching, answers)
    answers.finish()
    return matching.changes()


def _match_names(matching: Matching, answers: Answers) -> None:
    for name in [name for name in matching.old if name in matching.new]:
        same = same_text(matching.old[name], matching.new[name])
        if same is None:
            same = _is_kept(name, answers)
        if same:
            matching.keep(name, name)


def _is_kept(name: str, answers: Answers) -> bool:
    """Whether `name` holds the same text; a question that stays open counts as yes, so that nothing hangs on it."""
    candidates = (("kept", "it holds the same text"), ("revised", "it holds another text now"))
    question = (
        f"Does {name!r} hold the same text as before? Only one of the two revisions tells what it holds."
    )
    return answers.ask(name, question, candidates) != "revised"


def _ask_splits(matching: Matching, answers: Answers) -> None:
    removed, added = matching.removed, matching.added
    for parent, parts in _under(removed, added):
        question = f"{parent!r} is gone and there are {len(parts)} domains under its name: was it split?"
        words = (
            ("split", "its parts hold together its text"),
            ("separate", "it is removed and the domains under its name are new"),
        )
        answers.settle(parent, *parts)
        word = answers.ask(parent, question, words)
        if word == "split":
            check_split(parent, removed[parent], {part: added[part] for part in parts}, field="said")
        if word != "separate":
            matching.divide(parent, parts)


def _ask_merges(matching: Matching, answers: Answers) -> None:
    removed, added = matching.removed, matching.added
    for name, sources in _under(added, removed):
        question = (
            f"{name!r} is new and {len(sources)} domains under its name are gone: is it merged from them?"
        )
        words = (
            ("merge", "it holds together the text of those that were under its name"),
            ("separate", "it is a new domain, and those that were under its name are removed"),
        )
        answers.settle(name, *sources)
        word = answers.ask(name, question, words)
        if word == "merge":
            check_merge(name, added[name], {source: removed[source] for source in sources}, field="said")
        if word != "separate":
            matching.unite(name, sources)


def _under(above: Leaves, below: Leaves) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each name that two or more of the others lie under, with these."""
    groups = nested(below)
    for name in above:
        if len(group := groups.get(name, ())) > 1:
            yield name, group


_SEPARATE = ("separate", "it is a new domain")
_RENAME = ("rename", "it is the same text under another name")
_REVISED = ("revised", "it takes the place of that domain, with another text")
_RENAME_REVISED = ("rename", "it is that domain under another name; its text changed, as the token count did")


@dataclass(frozen=True)
class _Sources:
    """Removed domains that added ones may be, and the words to choose with; shared by all they are the same for."""

    names: tuple[str, ...]
    words: Candidates

    @classmethod
    def of(cls, names: tuple[str, ...]) -> "_Sources":
        if len(names) == 1:
            return cls(names, (_RENAME, _SEPARATE))
        return cls(names, (*((name, f"it is {name!r} under another name") for name in names), _SEPARATE))


def _ask_equal_contents(matching: Matching, answers: Answers) -> None:
    """Where several domains hold one text: which of them is which.

    Raises:
        InvalidAnswer: no candidate, or two domains are said to be the same one.
    """
    old = holders(matching.old)
    for content, names in holders(answers.unsettled(matching.new)).items():
        if content not in old:
            continue
        sources = _Sources.of(tuple(old[content]))
        answers.settle(*names, *sources.names)
        taken: dict[str, str] = {}
        for name in names:
            question = f"Several domains hold the text of {name!r}: which of those that are gone is it?"
            _follow(matching, sources, taken, name, answers.ask(name, question, sources.words))


def _ask_renames(matching: Matching, answers: Answers) -> None:
    """What is gone and what is new may be one: by an equal count, by nesting, or because nothing else is left.

    Raises:
        InvalidAnswer: no candidate, or two domains are said to be the same one.
    """
    removed, added = answers.unsettled(matching.removed), answers.unsettled(matching.added)
    suggestions = _Suggestions(removed, added)
    taken: dict[str, str] = {}
    for name, leaf in added.items():
        sources = suggestions.of(name, leaf)
        if not sources.names:
            continue
        if len(sources.names) == 1:
            gone = sources.names[0]
            question = f"{gone!r} is gone and {name!r} is new: is it the same domain?"
            word = answers.ask(name, question, _words(removed[gone], leaf))
        else:
            question = (
                f"{len(sources.names)} domains are gone that {name!r} may have been: which of them is it?"
            )
            word = answers.ask(name, question, sources.words)
        _follow(matching, sources, taken, name, word)


def _words(gone: Leaf, new: Leaf) -> Candidates:
    if same_text(gone, new) is False:
        return _RENAME_REVISED, _SEPARATE
    return _RENAME, _REVISED, _SEPARATE


def _follow(
    matching: Matching, sources: _Sources, taken: dict[str, str], name: str, word: str | None
) -> None:
    """Do what was said about `name`; `taken` holds who is said to be what so far."""
    if word is None or word == "separate":
        return
    gone = sources.names[0] if len(sources.names) == 1 else word
    if gone in taken:
        both = [taken[gone], name]
        raise InvalidAnswer(
            f"{both[0]!r} and {both[1]!r} are both said to be {gone!r}; one of them is 'separate', or"
            f" {gone!r} was split",
            field="said",
            names=both,
        )
    taken[gone] = name
    if word == "revised" or same_text(matching.old[gone], matching.new[name]) is False:
        matching.revise(gone, name)
    else:
        matching.keep(gone, name)


class _Suggestions:
    """Which removed domains an added one may be."""

    def __init__(self, removed: Leaves, added: Leaves) -> None:
        # Equal counts say nothing where both contents are known: they differ, or they would have been matched.
        unknown = {name: leaf for name, leaf in removed.items() if leaf.content is None}
        self._to_unknown, self._to_known = _by_count(removed), _by_count(unknown)
        self._related = dict(_only_relatives(removed, added))
        if len(removed) == len(added) == 1:
            (gone, before), (name, after) = *removed.items(), *added.items()
            if before.content is None and after.content is None:
                self._related[name] = gone

    def of(self, name: str, leaf: Leaf) -> _Sources:
        """The removed domains that `name` may be."""
        by_count = self._to_unknown if leaf.content is None else self._to_known
        equal = _Sources((), ()) if leaf.tokens is None else by_count.get(leaf.tokens, _Sources((), ()))
        related = self._related.get(name)
        if related is None or related in equal.names:
            return equal
        return _Sources.of((*equal.names, related))


def _by_count(leaves: Leaves) -> dict[float, _Sources]:
    names_of: dict[float, list[str]] = defaultdict(list)
    for name, leaf in leaves.items():
        if leaf.tokens is not None:
            names_of[leaf.tokens].append(name)
    return {count: _Sources.of(tuple(names)) for count, names in names_of.items()}


def _only_relatives(removed: Leaves, added: Leaves) -> Iterator[tuple[str, str]]:
    """`(new, gone)` where one is the only domain under the other's name, and their texts are not known to differ."""
    under_new, under_gone = nested(added), nested(removed)
    pairs = [(group[0], gone) for gone in removed if len(group := under_new.get(gone, ())) == 1]
    pairs += [(name, group[0]) for name in added if len(group := under_gone.get(name, ())) == 1]
    for name, gone in pairs:
        if removed[gone].content is None or added[name].content is None:
            yield name, gone
