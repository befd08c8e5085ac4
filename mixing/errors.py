"""Every way the mathematics of mixtures refuses its input.

MixingError(ValueError)
├── InvalidDomainName     a name is not `source[:topic[:quality]]`, or is leaf and parent at once
├── DuplicateDomain       a domain is named twice
├── UnknownDomain         a mixture names a domain that the set does not have
├── MissingDomain         a mixture leaves out a domain that the set has
├── InvalidTokens         a domain's token count is not a positive number
├── TooFewDomains         nothing to mix
├── InvalidWeights        a weight is negative or not finite, or the weights do not sum to 1
├── UnknownMethod         no such method
├── InvalidSetting        a setting is outside its range
│   ├── NotHeeded         a setting that the recipe's solver would ignore
│   └── NeverMet          a rule to stop by that no run can satisfy
├── TooFewRuns            the regression cannot be fitted with so few runs
├── InvalidMetrics        a metric is missing, not finite, not positive or constant
├── DuplicateRun          a run is given twice, under one id or under two
├── InvalidLineage        revisions that do not descend from each other as they say
├── UnknownRevision       a revision that is not in the lineage
├── OppositeDirections    tasks better when higher would be averaged with tasks better when lower
├── InvalidContent        a content key that should add up does not
├── AmbiguousChange       what became of a domain cannot be told from names and contents
├── InvalidAnswer         an answer to nothing that was asked, or not one of the candidates
├── SplitMismatch         the parts of a split do not add up to the parent
│   └── MergeMismatch     the sources of a merge do not add up to the merged domain
└── Infeasible            no mixture satisfies the constraints

`code` is the class's name written as `too_few_runs`; it is stable and meant for machines. `field` names the part of
the request at fault, `names` the domains, runs or tasks at fault.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar


class MixingError(ValueError):
    """Input the mathematics cannot work with; the message says what is wrong and what to do."""

    code: ClassVar[str] = "invalid_input"

    def __init_subclass__(cls) -> None:
        cls.code = re.sub(r"(?<=.)(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, message: str, *, field: str | None = None, names: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.field = field
        self.names = tuple(names)


class InvalidDomainName(MixingError):
    """A domain's name is malformed, or names a leaf that other domains hang under."""


class DuplicateDomain(MixingError):
    """A domain is named more than once."""


class UnknownDomain(MixingError):
    """A name that the domain set does not have."""


class MissingDomain(MixingError):
    """A domain of the set is not mentioned where all must be."""


class InvalidTokens(MixingError):
    """A domain's token count is zero, negative or not finite."""


class TooFewDomains(MixingError):
    """Fewer than two domains: there is nothing to mix."""


class InvalidWeights(MixingError):
    """Weights that are not a distribution."""


class UnknownMethod(MixingError):
    """No method has this name; the message lists those there are."""


class InvalidSetting(MixingError):
    """A setting lies outside the range in which it means something."""


class NotHeeded(InvalidSetting):
    """A setting that the solver would pass over in silence; `field` names it."""


class NeverMet(InvalidSetting):
    """A rule to stop by that cannot be met, whatever is measured."""


class TooFewRuns(MixingError):
    """Fewer runs than the regression needs: `needed` at least, `given` so many.

    `names` holds what so few runs would still do for, where that is known.
    """

    def __init__(self, message: str, *, needed: int, given: int, names: Iterable[str] = ()) -> None:
        super().__init__(message, field="runs", names=names)
        self.needed = needed
        self.given = given


class InvalidMetrics(MixingError):
    """A metric that cannot be fitted; `names` holds the run ids and tasks at fault."""


class DuplicateRun(MixingError):
    """A run is given more than once; `names` holds the ids."""


class OppositeDirections(MixingError):
    """Tasks better when higher beside tasks better when lower, and nothing that says how to turn them."""


class InvalidLineage(MixingError):
    """Revisions that do not descend from each other in the way they say."""


class UnknownRevision(MixingError):
    """A revision that is not an ancestor of the one in question."""


class InvalidContent(MixingError):
    """A content key that is not 64 lowercase hexadecimal digits where keys are added."""


@dataclass(frozen=True)
class ChangeQuestion:
    """What somebody has to say about one domain.

    Attributes:
        domain: the answer is given under this name.
        question: a sentence.
        candidates: pairs of the word to answer with and a sentence that says what it means.
    """

    domain: str
    question: str
    candidates: tuple[tuple[str, str], ...]


class AmbiguousChange(MixingError):
    """Names and contents leave open what became of the domains in `names`; `questions` ask about each."""

    def __init__(self, questions: Iterable[ChangeQuestion]) -> None:
        self.questions = tuple(questions)
        first = "; ".join(
            f"{question.question} ({', '.join(word for word, _ in question.candidates[:4])}"
            f"{', ...' if len(question.candidates) > 4 else ''})"
            for question in self.questions[:3]
        )
        more = f"; and {len(self.questions) - 3} more" if len(self.questions) > 3 else ""
        super().__init__(
            f"what changed cannot be told from names and contents; say one word for each: {first}{more}",
            field="said",
            names=(question.domain for question in self.questions),
        )


class InvalidAnswer(MixingError):
    """An answer to something that was not asked, one that is no candidate, or two that exclude each other."""


class SplitMismatch(MixingError):
    """The parts of a split are not together the parent; `parts` and `whole` are the token counts, where known."""

    def __init__(
        self, message: str, *, field: str, names: Iterable[str], parts: float | None, whole: float | None
    ) -> None:
        super().__init__(message, field=field, names=names)
        self.parts = parts
        self.whole = whole


class MergeMismatch(SplitMismatch):
    """The sources of a merge are not together the merged domain."""


class Infeasible(MixingError):
    """No mixture satisfies the constraints named in `names`.

    When the cause is a target that the caps cannot reach, `missing_tokens` is how many more unique tokens
    it would take, `largest_target` the largest number of target tokens that is reachable, and `smallest_cap` a
    repetition cap that reaches it, in hundredths of an epoch.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        names: Iterable[str] = (),
        missing_tokens: int | None = None,
        largest_target: int | None = None,
        smallest_cap: float | None = None,
    ) -> None:
        super().__init__(message, field=field, names=names)
        self.missing_tokens = missing_tokens
        self.largest_target = largest_target
        self.smallest_cap = smallest_cap


# What a value that should be a number is, before it is refused by name.


def as_number(value: object) -> float:
    """The value as a float; NaN for what is no number: text that looks like one, a truth value, nothing.

    >>> as_number(3), as_number("3"), as_number(True)
    (3.0, nan, nan)
    """
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan


def shown(value: object) -> str:
    """The value as a message names it: a number as it is, anything else so that it cannot pass for one."""
    return str(value) if isinstance(value, Real) else repr(value)
