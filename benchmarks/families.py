"""Our models beside every opponent on the judged days of a run, from the forecasts that its validation left behind.

    python benchmarks/families.py --root VN-Quant-Training --report reports/RUN [--note "walk of 4 folds"]

For each family: accuracy and base rate, errors, mean correlation by symbol, correlation between the symbols of a day,
and how much squared error of the 5-day return we save against it, with the 95 % interval and the p of Diebold and
Mariano's test of date means. Prints the table and adds it to benchmarks/results/families.csv.
"""

import argparse
from pathlib import Path

import pandas as pd
from machine import keep

from vnq_colab.data.prepared import load_prepared
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.evaluation.metrics import score_rows, summary, with_outcomes
from vnq_colab.evaluation.probability import interval_coverage
from vnq_colab.evaluation.skill import compare, information_coefficient
from vnq_colab.layout import Workspace
from vnq_colab.training.session import Session


def table(ws: Workspace, folder: Path) -> pd.DataFrame:
    """One row per family, ours first."""
    verdict = Verdict.load(folder / "verdict.json")
    session = Session.load(ws, verdict.run_id)
    prepared = load_prepared(ws, session.data_id)
    rows = with_outcomes(pd.read_parquet(folder / "forecast.parquet"), prepared.panel)
    ours = rows[rows["family"] == session.family]
    scores = score_rows(rows, prepared.panel)
    found = summary(scores)[["family", "accuracy", "base_rate", "rmse_1", "rmse_5", "brier"]].set_index("family")
    found["correlation"] = scores.groupby("family")["correlation"].mean()
    orders = information_coefficient(rows).set_index("family")
    found["rank_ic"], found["rank_ic_p"] = orders["rank_ic"], orders["rank_ic_p"]
    against = compare(rows, session.family).set_index("opponent")
    for name in ("gain", "gain_low", "gain_high"):
        found[name.replace("gain", "saved")] = against[name] / (ours["actual"] ** 2).mean()
    found["p_no_better"] = against["p"]
    found["stock_days"], found["dates"] = len(ours), ours["date"].nunique()
    found["first"], found["last"] = f"{ours['date'].min():%Y-%m-%d}", f"{ours['date'].max():%Y-%m-%d}"
    covered = interval_coverage(ours, 0.9)["covered"]
    found.loc[session.family, "coverage_of_90"] = covered.iloc[0] if len(covered) else float("nan")
    found.loc[session.family, "accepted"] = verdict.summary["decisions"]["accept"]
    order = [session.family, *(name for name in found.index if name != session.family)]
    return found.loc[order].reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="the workspace")
    parser.add_argument("--report", required=True, help="folder of the report, below the workspace")
    parser.add_argument("--note", default="", help="what was judged, in words")
    options = parser.parse_args()
    ws = Workspace(Path(options.root))
    found = table(ws, ws.root / options.report)
    print(found.to_string(index=False, float_format="{:.4g}".format))
    texts = found.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))
    keep("families", [{"note": options.note, **row} for row in texts.to_dict("records")])


if __name__ == "__main__":
    main()
