"""What is asked about a change that names and contents leave open, and what was said."""

from collections.abc import Iterable, Mapping

from mixing.change.revision import Leaf, Leaves
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
