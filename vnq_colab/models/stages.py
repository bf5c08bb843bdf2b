"""Two stages of a fold: networks that have not seen its validation days, then those that forecast its test days.

The first stage's forecasts of the validation days are out of sample: they calibrate, and say how long to train. The
second learns from all days before the test, because the newest year is worth more than anything held out (EXPERIMENTS,
2026-11-28). A final fit has one stage.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from vnq_colab.models.base import Learner, Progress, Trained, TrainingData
from vnq_colab.models.network_forecaster import NetworkForecaster
from vnq_colab.models.torch_learner import StackLearner

Make = Callable[[TrainingData, Trained | None], StackLearner]  # (days of the stage, what the stage before found)


class StagedLearner(Learner):
    """A stack of networks for each stage, made by `make`."""

    def __init__(self, data: TrainingData, make: Make):
        self.data, self._make = data, make
        self.held_out: Trained | None = None  # what the first stage found
        self.stack = make(data, None)
        self._turn()

    @property
    def finished(self) -> bool:
        return self.stack.finished and (self.data.is_final or self.held_out is not None)

    def step(self) -> Progress:
        stage = "fit" if self.data.is_final or self.held_out is not None else "held out"
        progress = self.stack.step()
        self._turn()
        share = progress.share if self.data.is_final else 0.5 * progress.share + 0.5 * (stage == "fit")
        return replace(progress, share=1.0 if self.finished else share, words=f"{stage}, {progress.words}")

    def _turn(self) -> None:
        """From the first stage to the second, once that is finished."""
        if self.stack.finished and self.held_out is None and not self.data.is_final:
            self.held_out = self.stack.result()
            if self.held_out.forecaster is None:
                return
            self.stack = self._make(self._all_before_the_test(), self.held_out)

    def _all_before_the_test(self) -> TrainingData:
        days = np.arange(len(self.data.valid)) <= np.flatnonzero(self.data.valid)[-1]
        return replace(self.data, train=days, valid=np.zeros_like(days))

    def state_dict(self) -> dict[str, Any]:
        found = self.held_out and {
            "forecaster": self.held_out.forecaster and self.held_out.forecaster.to_state(), "rows": self.held_out.rows,
            "curves": list(self.held_out.curves), "budget": self.held_out.budget, "failed": self.held_out.failed}
        return {"held_out": found, "stack": self.stack.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (found := state["held_out"]) is not None:
            made = found["forecaster"] and NetworkForecaster.from_state(found["forecaster"], str(self.stack.device))
            self.held_out = Trained(made, found["rows"], [tuple(row) for row in found["curves"]], found["budget"],
                                    found["failed"])
            if made is not None:
                self.stack = self._make(self._all_before_the_test(), self.held_out)
        self.stack.load_state_dict(state["stack"])

    def result(self) -> Trained:
        last, first = self.stack.result(), self.held_out
        if first is None or first.forecaster is None:
            return last if first is None else first
        return replace(last, rows=first.rows, curves=first.curves, budget=first.budget,
                       failed=first.failed | last.failed, valid_forecaster=first.forecaster)
