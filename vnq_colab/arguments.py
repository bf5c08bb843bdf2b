"""What the commands understand: the flags, each with a help that teaches, and one sentence for a wrong one."""

import argparse
import math
import sys
from typing import Any, NoReturn

from vnq_colab.config import PROFILES, RECIPES, RunConfig
from vnq_colab.errors import ConfigError, did_you_mean

BAD_INPUT = 2
EXAMPLES = {"--set": "--set train.learning_rate=3e-4", "--treat": "--treat unadjusted_action=keep",
            "--unit": "--unit kVND, or --unit FILE.csv=VND"}
BEGIN_WITH = "Begin with: python -m vnq_colab run --data PRICES.parquet  (without --data: a synthetic market)"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        wrong = message.partition("invalid choice: ")[2].split("'")[1:2]
        choices = message.partition("(choose from ")[2].rstrip(")").replace("'", "").split(", ")
        hint = did_you_mean(wrong[0], choices) if wrong else ""
        print(f"vnq_colab: {message.partition(' (choose')[0] if hint else message}.{hint} See {self.prog} --help.",
              file=sys.stderr)
        sys.exit(BAD_INPUT)


def common_flags(sub: Parser) -> None:
    """Flags of every command."""
    sub.add_argument("--root", metavar="DIR", help="the workspace (default: $VNQ_HOME, else Google Drive for Desktop, "
                                                   "else ./VN-Quant-Training)")
    sub.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")


def data_flags(sub: Parser) -> None:
    """Where the prices come from."""
    source = sub.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="PATH",
                        help="price file, zip or folder, in any known format: CafeF, vnstock, AmiBroker, cophieu68, "
                             "VNDirect, Yahoo, or columns symbol, date, open, high, low, close, volume; what lies in "
                             "data/weekly_updates/ is merged into it (default: data/raw/ of the workspace, and a "
                             "synthetic market when there are no files)")
    source.add_argument("--from-drive-link", dest="data", metavar="URL",
                        help="the same from a Google Drive share link; downloaded into data/raw/ once")
    price_flags(sub)


def price_flags(sub: Parser) -> None:
    """How prices are read."""
    sub.add_argument("--index", metavar="PATH", help="market index with date, close (default: a VNINDEX among the "
                                                     "files, else the mean of all stocks)")
    sub.add_argument("--as-of", metavar="DATE", help="stand in this evening: later rows are left out (default: today)")
    sub.add_argument("--on-bad-rows", choices=("raise", "drop", "treat"),
                     help="stop at a bad row, leave it out, or repair what can be repaired (default: raise for tables "
                          "in our own columns, treat for the files of vendors)")
    sub.add_argument("--treat", action="append", default=[], metavar="DISEASE=TREATMENT",
                     help="another treatment for one disease, e.g. unadjusted_action=keep; a wrong name lists all; "
                          "may be repeated")
    sub.add_argument("--unit", action="append", default=[], metavar="[FILE=]UNIT",
                     help="VND or kVND (thousand VND) when the prices do not say it clearly; may be repeated")


def profile_flag(sub: Parser) -> None:
    """Which machine."""
    sub.add_argument("--profile", choices=tuple(PROFILES),
                     help="the machine (default: $VNQ_PROFILE, else what is found)")


def owner_flag(sub: Parser) -> None:
    """Who may train a run."""
    sub.add_argument("--take-over", action="store_true",
                     help="go on with a run that another process or machine may still be training; that one notices at "
                          "its next write, and stops")


def part_flag(sub: Parser) -> None:
    """Which part of the folds."""
    sub.add_argument("--part", metavar="1/2", help="train every second fold here, and 2/2 on another machine with "
                                                   "the same folder; whoever finishes last trains the final fit")


def hours_flag(sub: Parser) -> None:
    """How long."""
    sub.add_argument("--hours", type=_hours, metavar="H",
                     help="pause after so many hours (default: on Colab what is left of the machine, else no limit)")


def _hours(text: str) -> float:
    """Hours, 0 or more."""
    hours = float(text)
    if not hours >= 0:
        raise argparse.ArgumentTypeError(f"{text}: must be a number of hours, 0 or more")
    return hours


def run_flag(sub: Parser) -> None:
    """Which run."""
    sub.add_argument("--run", metavar="ID", help="which run, or the beginning of its name (default: the latest)")


def train_flags(sub: Parser) -> None:
    """How to train."""
    profile_flag(sub)
    hours_flag(sub)
    sub.add_argument("--families", metavar="A,B", help="what learns (default: stockformer,global,trees)")
    sub.add_argument("--folds", type=int, metavar="N", help="years that are judged, each by models trained before it "
                                                            "(default: as many as the data has, at most 8)")
    sub.add_argument("--symbols", metavar="A,B", help="which symbols are judged (default: the 102 of VN102 that the "
                                                      "data has); every stock of the data is learnt from")
    sub.add_argument("--recipe", choices=tuple(RECIPES), default="default", help="how to train")
    sub.add_argument("--epochs", type=int, metavar="N", help="at most so many epochs of the networks")
    sub.add_argument("--members", type=int, metavar="N", help="networks in an ensemble (default: 3)")
    sub.add_argument("--checkpoint-minutes", type=float, metavar="M", help="minutes between checkpoints (default: 20)")
    sub.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, data order and dropout (default: 0)")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                     help="any other setting, e.g. train.learning_rate=3e-4 (all networks), trees.leaves=31, "
                          "global.epochs=4, task.target=return; may be repeated")


def judge_flags(sub: Parser) -> None:
    """What to judge, and how."""
    sub.add_argument("--gates", choices=("honest", "original"), default="honest",
                     help="honest (decides well) or original (those of the source texts)")
    sub.add_argument("--from", dest="first", metavar="DATE", help="first judged day (default: the run's test days)")
    sub.add_argument("--to", dest="last", metavar="DATE", help="last judged day")
    sub.add_argument("--capital", type=float, metavar="VND", help="of the basket (default: 1 billion)")
    sub.add_argument("--slippage", type=float, metavar="FRACTION", help="of the price, each side (default: 0.002)")
    sub.add_argument("--show-predictions", metavar="SYMBOL",
                     help="also print a symbol's last 20 forecasts beside what happened")


def tidy_flags(sub: Parser) -> None:
    """What to keep."""
    sub.add_argument("--keep", type=int, default=2, metavar="N", help="finished runs that stay whole (default: 2)")
    sub.add_argument("--delete", action="store_true", help="remove what is shown; without it nothing is changed")


def predict_flags(sub: Parser) -> None:
    """What to forecast from, and with what."""
    sub.add_argument("--data", metavar="PATH",
                     help="prices up to the latest day; all stocks, not only the 102 (default: those of the workspace)")
    price_flags(sub)
    sub.add_argument("--models", metavar="DIR", help="a bundle's folder (default: the workspace's current one)")
    sub.add_argument("--portfolio", metavar="FILE", help="a CSV file of symbol, shares, sellable_from, with a row CASH "
                     "in VND; \"new\" makes portfolio.csv in the workspace, of --capital in cash (default: that file, "
                     "else a portfolio on paper)")
    sub.add_argument("--capital", type=_capital, metavar="VND",
                     help="the most that the basket may be worth, and the cash of a new portfolio or one on paper, "
                          "such as 500e6 (default: 1e9)")
    sub.add_argument("--all", action="store_true", help="show every symbol, not only the accepted ones")


def _capital(text: str) -> float:
    """Money above 0 [VND]."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: write VND above 0 as 500e6, 500000000 or 500_000_000")
    return amount


def reading(options: argparse.Namespace) -> dict[str, Any]:
    """What the price flags say, as `prepare` and `gather` take it. Raises ConfigError for a pair that is none."""
    return {"index": options.index, "as_of": options.as_of, "on_bad_rows": options.on_bad_rows,
            "treatments": dict(pair(text, "--treat") for text in options.treat), "unit": _units(options)}


def run_config(options: argparse.Namespace) -> RunConfig:
    """The config that the flags of training ask for, on this machine."""
    from vnq_colab.colab import describe_machine

    config = RunConfig.for_machine(describe_machine(options.profile), recipe=options.recipe, seed=options.seed)
    named = {"train.epochs": options.epochs, "n_members": options.members,
             "train.checkpoint_minutes": options.checkpoint_minutes, "symbols": options.symbols,
             "families": options.families, "folds": options.folds}
    settings = [(name, str(value)) for name, value in named.items() if value is not None]
    for name, value in [*settings, *(pair(text, "--set") for text in options.set)]:
        config = config.with_setting(name, value)
    return config


def _units(options: argparse.Namespace) -> "str | dict[str, str] | None":
    if len(options.unit) == 1 and "=" not in options.unit[0]:
        return options.unit[0]
    return dict(pair(text, "--unit") for text in options.unit) or None


def pair(text: str, flag: str) -> tuple[str, str]:
    """"a=b" -> ("a", "b")."""
    name, equals, value = text.rpartition("=")
    if not equals:
        raise ConfigError(f"{flag} {text!r}: write it as {EXAMPLES[flag]}.")
    return name.strip(), value.strip()
