"""Evaluations of a run or wave: here, while training stands still, or on a borrowed device while it goes on.

Training hands over a snapshot of the parameters and takes the numbers when they are there. They are those of an
evaluation here: the same code on as many models with the same batches, and they are added in the order of steps
whenever they come in. One snapshot is out at a time; what is due meanwhile is evaluated here, so that both devices
work. It stays readable until it is answered for: where the evaluator ends without an answer, or its device is wanted
back, it is evaluated here.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from proxy_models.evaluation.evaluator_handle import Evaluator, EvaluatorEnded, Found
from proxy_models.evaluation.evaluator_order import shape_of, tasks_to_json
from proxy_models.evaluation.lending import Lending, Loan
from proxy_models.evaluation.scores import Scored
from proxy_models.torch_device import this_device
from proxy_models.training.run_spec import RunSpec

log = logging.getLogger("mixwright.evaluation")

FORWARD_SHARE = 1 / 3
"""Evaluating a token is a forward pass: this share of what training one costs."""
PATIENCE_SECONDS = 60.0
"""An evaluator from which nothing came for so long, and three times what it should take, hangs."""
LOOK_SECONDS = 0.1
"""How often it is looked for an answer, and for who wants the device back: a step may take a millisecond."""


class Models(Protocol):
    """What is evaluated: a `Backend`, or what shows a single model as one."""

    @property
    def members(self) -> int:
        """How many models."""
        ...

    def parameters(self, member: int) -> dict[str, Tensor]:
        """The member's parameters as they are trained, not copies, without gradient."""
        ...

    def evaluate(self, tasks: Mapping[str, Scored]) -> Found:
        """What each member measures; for one that is not trained any more it means nothing."""
        ...


@dataclass(frozen=True)
class Evaluated:
    """What is measured of a run or wave: ``tasks`` at its `evaluation_steps`, the held-out ``slices`` at its end.

    ``spec`` is one of the runs, ``backend`` the one that trains them.
    """

    spec: RunSpec
    backend: str
    tasks: Mapping[str, Scored]
    slices: Mapping[str, Scored]

    def tokens(self, tasks: Mapping[str, Scored]) -> int:
        """Read to evaluate one model."""
        return sum(len(window.tokens) for scored in tasks.values() for window in scored.windows)


@dataclass(frozen=True)
class _Out:
    """A snapshot that is not answered for: its step, its members, and when to give up waiting."""

    step: int
    members: Sequence[int]
    give_up: float


class Evaluations:
    """The evaluations of a run or wave; ``add(step, found)`` is told each of them, in the order of steps.

    What ``add`` raises comes out of whichever method told it. `close` it when training ends, however it ends.
    """

    def __init__(
        self,
        evaluated: Evaluated,
        models: Models,
        lending: Lending,
        add: Callable[[int, Found], None],
    ) -> None:
        self.evaluated, self.models, self.lending, self.add = evaluated, models, lending, add
        self._loan: Loan | None = None
        self._evaluator: Evaluator | None = None
        self._out: _Out | None = None
        self._behind: list[tuple[int, Found]] = []
        self._trusted = True
        self._next_look = 0.0

    @property
    def pending(self) -> bool:
        """Whether a measurement is still to come."""
        return self._out is not None

    @property
    def postponement(self) -> int:
        """How many intervals may be between two checkpoints.

        One holds every measurement up to its step. So that training need not wait for one that is pending, it comes
        later, but never later than after a second interval.
        """
        return 2 if self.pending else 1

    def begin(self, step: int, members: Sequence[int], token_seconds: float) -> None:
        """Have the tasks evaluated on the ``members`` as they are after ``step`` steps.

        ``token_seconds`` is what training takes per token of each member.
        """
        if not self.evaluated.tasks or not members:
            return
        if self.pending or not self._send(step, members, token_seconds):
            self._found(step, self.models.evaluate(self.evaluated.tasks))

    def poll(self) -> None:
        """Add what has come in, give the device back where it is wanted. Called after every step; never waits."""
        if self._evaluator is not None and time.monotonic() >= self._next_look:
            self._look(0.0)
            self._next_look = time.monotonic() + LOOK_SECONDS

    def settle(self) -> None:
        """Wait for what is pending."""
        while self._out is not None:
            if time.monotonic() > self._out.give_up:
                self._distrust("it says nothing")
            else:
                self._look(LOOK_SECONDS)

    def finish(self, step: int) -> None:
        """Evaluate the slices here, beside what may still be out, wait for that, and give the device back."""
        self._found(step, self.models.evaluate(self.evaluated.slices))
        self.settle()
        self.close()

    def close(self) -> None:
        """End the evaluator and give its device back; what is pending is not waited for."""
        if self._evaluator is not None:
            self._evaluator.close()
        if self._loan is not None:
            self._loan.close()
        self._evaluator = self._loan = self._out = None

    def _send(self, step: int, members: Sequence[int], token_seconds: float) -> bool:
        """Hand over a snapshot; False where nobody takes one, or it is not worth it."""
        if self._evaluator is None and not self._pays(step, token_seconds):
            return False
        try:
            evaluator = self._evaluator or self._start(step)
            if evaluator is None:
                return False
            parameters = {
                f"{member}.{name}": parameter
                for member in members
                for name, parameter in self.models.parameters(member).items()
            }
            evaluator.send(step, members, parameters)
        except OSError as error:  # no room for a file or a process, or the one there is was killed
            self._distrust(str(error))
            return False
        seconds = self.evaluated.tokens(self.evaluated.tasks) * token_seconds * FORWARD_SHARE
        self._out = _Out(step, members, time.monotonic() + PATIENCE_SECONDS + 3 * seconds)
        return True

    def _pays(self, step: int, token_seconds: float) -> bool:
        """Whether the evaluations left take long enough, and there is as long something else to do here meanwhile."""
        training = self.evaluated.spec.training
        left = sum(later >= step for later in training.evaluation_steps())
        tasks = left * self.evaluated.tokens(self.evaluated.tasks) * FORWARD_SHARE
        meanwhile = (training.steps - step) * training.tokens_per_step
        meanwhile += self.evaluated.tokens(self.evaluated.slices) * FORWARD_SHARE
        return self._trusted and min(tasks, meanwhile) * token_seconds >= self.lending.least_seconds

    def _start(self, step: int) -> Evaluator | None:
        """An evaluator on a borrowed device; None where none is idle. Raises OSError."""
        self._loan = self.lending.lender.borrow()
        if self._loan is None:
            return None
        spec, device = self.evaluated.spec, self._loan.device
        order = {
            "spec": shape_of(spec, device),
            "backend": self.evaluated.backend,
            "members": self.models.members,
            "tasks": tasks_to_json(self.evaluated.tasks),
            "device_name": this_device(spec.device).name,
        }
        self._evaluator = Evaluator(order, spec.directory)
        log.info("from step %d on tasks are evaluated on another device, %s", step, device)
        return self._evaluator

    def _look(self, timeout: float) -> None:
        if self._evaluator is None or self._loan is None:
            return
        if self._out is not None:
            try:
                found = self._evaluator.answer(timeout)
            except EvaluatorEnded as error:
                self._distrust(str(error))
                return
            if found is not None:
                self._answered(found)
        # A processor computes for two meanwhile, but an accelerator may have no memory for both.
        if (self._out is None or self._loan.device != "cpu") and self._loan.wanted():
            self._take_over()

    def _distrust(self, why: str) -> None:
        """Evaluate here from now on: what ended one evaluator may end the next."""
        log.warning("an evaluator on another device failed, tasks are evaluated here: %s", why)
        self._trusted = False
        self._take_over()

    def _take_over(self) -> None:
        """End the evaluator, give its device back, and evaluate here what it has not answered."""
        out = self._out
        snapshot = self._evaluator.snapshot() if out is not None and self._evaluator is not None else {}
        self.close()
        if out is not None:
            self._out = out
            self._answered(self._evaluate_snapshot(out.members, snapshot))

    def _evaluate_snapshot(self, members: Sequence[int], snapshot: Mapping[str, Tensor]) -> Found:
        """With the parameters of the snapshot in the models' own place; what was there comes back."""
        now = [
            (parameter, snapshot[f"{member}.{name}"], parameter.clone())
            for member in members
            for name, parameter in self.models.parameters(member).items()
        ]
        try:
            for parameter, then, _ in now:
                parameter.copy_(then)
            return self.models.evaluate(self.evaluated.tasks)
        finally:
            for parameter, _, kept in now:
                parameter.copy_(kept)

    def _found(self, step: int, found: Found) -> None:
        if self._out is None:
            self.add(step, found)
        else:
            self._behind.append((step, found))

    def _answered(self, found: Found) -> None:
        """Add what was waited for, and what was found behind it meanwhile."""
        assert self._out is not None
        known = [(self._out.step, found), *self._behind]
        self._out, self._behind = None, []
        for step, one in known:
            self.add(step, one)
