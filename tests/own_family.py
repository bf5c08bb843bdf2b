"""A whole family in sixty lines, for whoever adds one: a ridge regression of the labels on the features."""

import hashlib

import torch
from sklearn.linear_model import Ridge

from vnq_colab.data.forecast import make_scores
from vnq_colab.models import base
from vnq_colab.models.states import load_files

NAME, PENALTY = "linear", 1e4


def plan(task, panel, folds, config, machine):
    return base.jobs_by_fold(NAME, panel, folds, config.symbols)


def learner(job, data, config, inputs):
    return base.StagedLearner(job, data, lambda days, _: RidgeLearner(job, days))


def load(folder):
    return load_files(NAME, folder, f"{NAME}.pt")


class RidgeLearner(base.Learner):
    """Learns in one step."""

    finished, model = False, None

    def __init__(self, job, data):
        self.job, self.data = job, data

    def step(self):
        rows, labels = self.data.labels.known & self.data.train, self.data.labels.values.mean(axis=2)
        weight = Ridge(PENALTY).fit(self.data.panel.values[rows], labels[rows]).coef_
        self.load_state_dict({"format": base.FORMAT, "weight": torch.tensor(weight, dtype=torch.float32),
                              "symbols": list(self.job.symbols), "features": list(self.data.panel.feature_names)})
        return base.Progress(1.0, "one regression")

    def state_dict(self):
        return self.model or {}

    def load_state_dict(self, state):
        self.model, self.finished = state, bool(state)

    def result(self):
        return base.Trained(RidgeForecaster(self.model), {}, [(base.EVERYONE, 0, 1, float("nan"), float("nan"))],
                            {"epochs": 1})


class RidgeForecaster(base.Forecaster):
    """One weight for each feature."""

    family, look_back = NAME, 1

    def __init__(self, state):
        self.state, self.symbols, self.feature_names = state, tuple(state["symbols"]), tuple(state["features"])

    def predict(self, panel, origins):
        self.check_features(panel)
        rows = [panel.symbols.index(symbol) for symbol in self.symbols]
        scores = panel.values[rows][:, origins] @ self.state["weight"].numpy()
        return make_scores(NAME, self.symbols, panel.days[origins], panel.present[rows][:, origins], score=scores)

    def select(self, symbols):
        return RidgeForecaster(self.state | {"symbols": list(symbols)})

    def to_state(self):
        return self.state

    @classmethod
    def from_state(cls, state, device="cpu"):
        return cls(state)

    def digest(self):
        return hashlib.sha256(self.state["weight"].numpy().tobytes()).hexdigest()


FORECASTER = RidgeForecaster
