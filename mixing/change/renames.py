"""Which of the domains that are gone a new one may be, where its text does not tell: asked, one word a domain."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mixing.change.matching import Matching, holders, nested, same_text
from mixing.change.revision import Leaf, Leaves
from mixing.errors import AmbiguousChange, ChangeQuestion, InvalidAnswer, UnknownDomain

# What is asked about a change that names and contents leave open, and what was said.

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
        self._said = dict(said)
        self._asked: dict[str, ChangeQuestion] = {}
        self._settled: set[str] = set()

    def ask(self, domain: str, question: str, candidates: Candidates) -> str | None:
        """The word said about `domain`, or None: then the question stays open.

        Raises:
            InvalidAnswer: the word is no candidate.
        """
        self._asked[domain] = ChangeQuestion(domain, question, candidates)
        word = self._said.get(domain)
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
        if idle := sorted(set(self._said) - set(self._asked)):
            raise InvalidAnswer(
                f"nothing is open about {', '.join(idle)}: names and contents tell; leave the answer out",
                field="said",
                names=idle,
            )
        if left := [question for name, question in self._asked.items() if name not in self._said]:
            raise AmbiguousChange(left)


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


def ask_equal_contents(matching: Matching, answers: Answers) -> None:
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


def ask_renames(matching: Matching, answers: Answers) -> None:
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
    found: dict[float, list[str]] = defaultdict(list)
    for name, leaf in leaves.items():
        if leaf.tokens is not None:
            found[leaf.tokens].append(name)
    return {count: _Sources.of(tuple(names)) for count, names in found.items()}


def _only_relatives(removed: Leaves, added: Leaves) -> Iterator[tuple[str, str]]:
    """`(new, gone)` where one is the only domain under the other's name, and their texts are not known to differ."""
    under_new, under_gone = nested(added), nested(removed)
    pairs = [(group[0], gone) for gone in removed if len(group := under_new.get(gone, ())) == 1]
    pairs += [(name, group[0]) for name in added if len(group := under_gone.get(name, ())) == 1]
    for name, gone in pairs:
        if removed[gone].content is None or added[name].content is None:
            yield name, gone
