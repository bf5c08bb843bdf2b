"""Reuse: what a new run need not train again, because an earlier one trained it on the same days with the same config.

A week later the folds of past years are what they were; the last fold, whose test days have grown, and the final fit
are trained anew.
"""

import numpy as np

from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import load_panel
from vnq_colab.errors import VnqError
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.jobs import facts_of, job_of, load_job
from vnq_colab.training.session import Session, sessions


def reuse(session: Session, panel: Panel) -> list[str]:
    """Takes the finished jobs of the newest earlier run of this config whose fold, and every bit up to its end, is the
    same; their names. They lie in the new run's `done/`, where its first attempt finds them.
    """
    earlier = [run for run in sessions(session.ws) if run.run_id < session.run_id and run.part == session.part and
               (run.config.config_id, run.code_version) == (session.config.config_id, session.code_version)]
    taken: list[str] = []
    if not earlier or set(earlier[-1].ledger) != set(session.ledger):
        return taken
    try:
        n_same = _same_days(load_panel(session.ws, earlier[-1].data_id), panel)
    except VnqError:  # its data was tidied away
        return taken
    old, new = CheckpointStore.of(earlier[-1]), CheckpointStore.of(session)
    for name, row in session.jobs.items():
        before, fold = earlier[-1].jobs.get(name), row["fold"]
        if fold is None or not before or before["state"] != "done" or job_of(before) != job_of(row) or (
                earlier[-1].folds[fold:fold + 1] != [session.folds[fold]]
                or panel.days.searchsorted(session.folds[fold]["test"]["last"], "right") > n_same):
            continue
        try:
            state = load_job(earlier[-1], old, name)
        except VnqError:  # damaged: it is trained
            continue
        del state["digest"]
        new.save_done(name, state | {"facts": facts_of(session, name)})
        taken.append(name)
    return taken


def _same_days(old: Panel, new: Panel) -> int:
    """How many days two panels of the same symbols share from the first on, to the last bit."""
    n = min(len(old.days), len(new.days))
    if old.symbols != new.symbols or old.feature_names != new.feature_names:
        return 0
    differ = np.asarray(old.days[:n] != new.days[:n])
    for one, other in ((old.values, new.values), (old.prices, new.prices), (old.present, new.present)):
        one, other = one[:, :n], other[:, :n]
        unequal = (one != other) & ~((one != one) & (other != other))  # NaN is equal to itself
        differ |= unequal.any(axis=(0, *range(2, unequal.ndim)))
    return int(np.argmax(differ)) if differ.any() else n
