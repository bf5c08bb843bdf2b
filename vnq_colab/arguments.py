"""The flags of the commands, each with a help that teaches, and what they ask for."""

import argparse
import contextlib
import datetime as dt
import functools
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import vnq_colab as vnq
from vnq_colab.config import PROFILES, RunConfig, require_known
from vnq_colab.errors import ConfigError, VnqError, did_you_mean, printable
from vnq_colab.layout import Workspace
from vnq_colab.recipes import RECIPES

if TYPE_CHECKING:
    from vnq_colab.data.prepared import Prepared

BAD_INPUT = 2
EXAMPLES = {"--set": "--set train.learning_rate=3e-4", "--treat": "--treat unadjusted_action=keep",
            "--unit": "--unit kVND, or --unit FILE.csv=VND"}
BEGIN_WITH = "Begin with: python -m vnq_colab run --data PRICES.parquet  (without --data: a synthetic market)"


def _number(is_good: Callable[[float], bool], rule: str) -> Callable[[str], float]:
    """What argparse takes as a type: a number that keeps to a rule, which stands in the error."""
    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            if is_good(number := float(text)):
                return number
        raise argparse.ArgumentTypeError(f"{text}: {rule}")
    return convert


def _day(text: str) -> str:
    with contextlib.suppress(ValueError):
        if 1900 <= (day := dt.datetime.strptime(text, "%Y-%m-%d")).year < 2200:
            return f"{day:%Y-%m-%d}"
    raise argparse.ArgumentTypeError(f"{text!r} is not a date: write it as 2026-11-20")


FLAGS: dict[str, dict[str, Any]] = {  # as argparse takes them
    "--root": {"metavar": "DIR", "help": "the workspace (default: $VNQ_HOME, else Google Drive for Desktop, else "
                                         "./VN-Quant-Training)"},
    "--json": {"action": "store_true", "help": "print one JSON object on stdout and nothing else there"},
    # prices
    "--data": {"metavar": "PATH", "help":
               "price file, zip, folder or Google Drive link, in any known format: CafeF, vnstock, AmiBroker, "
               "cophieu68, VNDirect, Yahoo, or columns symbol, date, open, high, low, close, volume; all stocks, not "
               "only the judged ones; data/weekly_updates/ is merged into it (default: data/raw/ of the workspace; "
               "without files there, prepare and run make a synthetic market, predict takes the prepared prices)"},
    "--index": {"metavar": "PATH", "help": "market index with date, close (default: a VNINDEX among the files, else "
                                           "the mean of all stocks)"},
    "--as-of": {"type": _day, "metavar": "DATE",
                "help": "as of the close of this day: later rows are left out (default: today)"},
    "--on-bad-rows": {"choices": ("raise", "drop", "treat"), "help":
                      "stop at a bad row, leave it out, or repair what can be repaired (default: raise for tables in "
                      "our own columns, treat for the files of vendors)"},
    "--treat": {"action": "append", "default": [], "metavar": "ISSUE=TREATMENT", "help":
                "another treatment for one data-quality issue, e.g. unadjusted_action=keep; a wrong name lists all; "
                "may be repeated"},
    "--unit": {"action": "append", "default": [], "metavar": "[FILE=]UNIT", "help":
               "VND or kVND (thousand VND) when the prices do not say it clearly; may be repeated"},
    # training
    "--profile": {"choices": tuple(PROFILES), "help": "the machine (default: $VNQ_PROFILE, else what is found)"},
    "--hours": {"type": _number(lambda hours: hours >= 0, "must be a number of hours, 0 or more"), "metavar": "H",
                "help": "pause after so many hours (default: on Colab what is left of the machine, else none)"},
    "--families": {"metavar": "A,B", "help": "what learns (default: stockformer,global,trees)"},
    "--folds": {"type": int, "metavar": "N", "help": "years that are judged, each by models trained before it "
                                                     "(default: as many as the data has, at most 8)"},
    "--symbols": {"metavar": "A,B", "help": "which symbols are judged (default: the 102 of VN102 that the data has); "
                                            "every stock of the data is learnt from"},
    "--recipe": {"default": "default", "metavar": "NAME", "help":
                 f"how to train: {', '.join(RECIPES)}, or the recipe.json of a search (default: default)"},
    "--epochs": {"type": int, "metavar": "N", "help": "at most so many epochs of the networks"},
    "--members": {"type": int, "metavar": "N", "help": "networks in an ensemble (default: 3)"},
    "--checkpoint-minutes": {"type": float, "metavar": "M", "help": "minutes between checkpoints (default: 20)"},
    "--seed": {"type": int, "default": 0, "metavar": "N", "help": "of weights, data order and dropout (default: 0)"},
    "--set": {"action": "append", "default": [], "metavar": "NAME=VALUE", "help":
              "any other setting, e.g. train.learning_rate=3e-4 (all networks), trees.leaves=31, global.epochs=4, "
              "task.target=return, a list as 'trees.monotone=[\"return_5\"]'; may be repeated"},
    # a search
    "--family": {"default": "trees", "metavar": "NAME", "help": "whose settings are searched (default: trees)"},
    "--trials": {"type": int, "default": 30, "metavar": "N", "help": "settings that are tried in all (default: 30)"},
    "--folds:search": {"type": int, "default": 4, "metavar": "N", "help":
                       "years on whose validation days each is measured, from the first on (default: 4)"},
    "--over": {"metavar": "A,B", "help": "which of the family's settings, such as trees.leaves,trees.learning_rate "
                                         "(default: all that it declares)"},
    "--suggest": {"metavar": "NAME", "help": "who is asked for every second trial: openai, for any server that speaks "
                                             "as OpenAI's; it sees settings and values alone"},
    "--constraints": {"default": "", "metavar": "TEXT", "help": "what a suggestion must keep to, in words"},
    "--part": {"metavar": "1/2", "help": "train every second fold here, and 2/2 on another machine with the same "
                                         "folder; whoever finishes last trains the final fit"},
    "--take-over": {"action": "store_true", "help": "go on with a run that another process or machine may still be "
                                                    "training; that one notices at its next write, and stops"},
    "--run": {"metavar": "ID", "help": "which run, or the beginning of its name (default: the latest)"},
    # bundles
    "--run:bundle": {"metavar": "ID", "help": "a run, or the beginning of its name, whose newest bundle is taken, or a "
                                              "bundle's folder (default: the challenger)"},
    "--force": {"action": "store_true", "help": "whatever its verdict and the comparison say; it is written down"},
    "--to:bundle": {"metavar": "ID", "help": "a bundle's folder, or a run (default: the champion before)"},
    # results
    "--onnx": {"action": "store_true", "help": "also write the networks as ONNX graphs, into onnx/ of the bundle"},
    "--int8": {"action": "store_true", "help": "the same, and with weights of 8 bits, at a quarter of the size"},
    "--gates": {"choices": ("honest", "original"), "default": "honest",
                "help": "honest (decides well) or original (those of the source texts)"},
    "--from": {"dest": "first", "type": _day, "metavar": "DATE",
               "help": "first judged day (default: the run's test days)"},
    "--to": {"dest": "last", "type": _day, "metavar": "DATE", "help": "last judged day"},
    "--capital": {"type": _number(lambda vnd: 0 < vnd < math.inf,
                                  "write VND above 0 as 500e6, 500000000 or 500_000_000"), "metavar": "VND", "help":
                  "of the basket, such as 500e6 (default: 1e9); to predict, the most that it may be worth, and the "
                  "cash of a new portfolio or one on paper"},
    "--slippage": {"type": _number(lambda share: 0 <= share < 1, "write a share of the price such as 0.002"),
                   "metavar": "FRACTION", "help": "of the price, each side (default: 0.002)"},
    "--haircut": {"type": _number(lambda share: 0 <= share < 1, "write a share such as 0.3"), "metavar":
                  "FRACTION", "help": "of its last close, lost where a stock vanishes (default: 0.3)"},
    "--show-predictions": {"metavar": "SYMBOL",
                           "help": "also print a symbol's last 20 forecasts beside what happened"},
    "--models": {"metavar": "DIR", "help": "a bundle's folder (default: the workspace's current one)"},
    "--portfolio": {"metavar": "FILE", "help":
                    "a CSV file of symbol, shares, sellable_from, with a row CASH in VND; \"new\" makes portfolio.csv "
                    "in the workspace, of --capital in cash (default: that file, else a portfolio on paper)"},
    "--paper": {"action": "store_true", "help": "first bring portfolio.csv forward by what was filled of the last "
                                                "orders at the next open, by the exchange's rules; once an evening"},
    "--collect": {"action": "store_true", "help": "first bring CafeF's newest prices into data/raw/; when that fails, "
                                                  "take those at hand and say so"},
    "--all": {"action": "store_true", "help": "show every symbol, not only the accepted ones"},
    # the week
    "--where": {"choices": ("local", "drive", "colab"), "default": "local", "help":
                "what trains: this machine; Colab by hand, where you press Run all on the workspace's Drive; or Colab "
                "by its command line (Linux and macOS; not tried live). Default: local"},
    "--no-collect": {"action": "store_true", "help": "the prices are there: fetch none"},
    "--until": {"metavar": "TIME", "help": "such as \"Mon 08:30\" or \"2026-11-30 08:30\", by the clock of Vietnam: "
                                           "what cannot be done by then is not begun, and training pauses"},
    "--fallback": {"choices": ("local",), "help": "train here what is missing when Colab or Drive is silent"},
    "--patience": {"type": _number(lambda minutes: minutes > 0, "must be minutes, above 0"), "default": 30.0,
                   "metavar": "M", "help": "minutes of silence, for --fallback and --where colab (default: 30)"},
    "--remote": {"metavar": "NAME:PATH", "help": "the workspace's folder on Drive as rclone names it, where this one "
                                                 "is on a disk of its own (default: $VNQ_REMOTE)"},
    "--gpu": {"default": "T4", "metavar": "NAME", "help": "that Colab is asked for: T4, L4, A100 (default: T4)"},
    "--keep": {"type": int, "default": 2, "metavar": "N", "help": "finished runs that stay whole (default: 2)"},
    "--notify": {"action": "append", "metavar": "URL", "help":
                 "whom to tell how it ends, as apprise writes an address; others see it while it runs, so better in "
                 "$VNQ_NOTIFY (the default); may be repeated"},
    "--notify-orders": {"action": "store_true", "help": "tell the orders as well, not only that something drifts"},
    "--weekly": {"default": "Sun 02:00", "metavar": "TIME", "help": "of weekly, in Vietnam (default: Sun 02:00)"},
    "--daily": {"default": "17:00", "metavar": "TIME", "help": "of predict, Mon to Fri, in Vietnam (default: 17:00)"},
    "--system": {"choices": ("systemd", "cron", "windows", "docker"), "help": "what starts it (default: its own)"},
    "--install": {"action": "store_true", "help": "put it into this person's systemd or crontab"},
    "--sync": {"action": "store_true", "help": "also write a file to Drive or $VNQ_REMOTE, read it back and compare"},
    "--print": {"dest": "install", "action": "store_false", "default": False, "help": "show it alone (the default)"},
    "--delete": {"action": "store_true", "help": "remove what is shown; without it nothing is changed"},
}
PRICES = "--data --index --as-of --on-bad-rows --treat --unit"
TRAINING = ("--profile --hours --families --folds --symbols --recipe --epochs --members --checkpoint-minutes --seed "
            "--set --notify")
WEEK = "--where --no-collect --until --fallback --patience --remote --gpu"
JUDGING = "--gates --from --to --capital --slippage --haircut --show-predictions"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        wrong = message.partition("invalid choice: ")[2].split("'")[1:2]
        choices = message.partition("(choose from ")[2].rstrip(")").replace("'", "").split(", ")
        hint = did_you_mean(wrong[0], choices) if wrong else ""
        sentence = f"{message.partition(' (choose')[0] if hint else message}.{hint} See {self.prog} --help."
        print(f"vnq_colab: {printable(sentence)}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def price_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the price flags say, as `prepare` and `gather` take it. Raises ConfigError for a pair that is none."""
    is_of_all = len(options.unit) == 1 and "=" not in options.unit[0]
    unit = options.unit[0] if is_of_all else dict(_pairs(options.unit, "--unit")) or None
    return {"index": options.index, "as_of": options.as_of, "on_bad_rows": options.on_bad_rows, "unit": unit,
            "treatments": dict(_pairs(options.treat, "--treat"))}


def collect(ws: Workspace, options: argparse.Namespace) -> list[str]:
    """Brings the newest prices when --collect asks for them; a sentence where that failed."""
    if not options.collect:
        return []
    if options.data is not None:
        raise ConfigError("--collect brings prices into data/raw/, which --data leaves out. Give one of them.")
    try:
        vnq.collect_prices(ws, day=options.as_of)
        return []
    except (VnqError, OSError) as error:
        return [f"the newest prices were not brought: {error}"]


def run_config(options: argparse.Namespace) -> RunConfig:
    """The config of the flags of training, on this machine."""
    config = RunConfig.for_machine(vnq.describe_machine(options.profile), recipe=options.recipe, seed=options.seed)
    named = {"epochs": "train.epochs", "members": "n_members", "checkpoint_minutes": "train.checkpoint_minutes",
             "symbols": "symbols", "families": "families", "family": "families", "folds": "folds"}
    settings = [(f"--{flag.replace('_', '-')}", setting, str(value)) for flag, setting in named.items()
                if (value := getattr(options, flag, None)) is not None]
    for flag, setting, value in [*settings, *(("--set", *pair) for pair in _pairs(options.set, "--set"))]:
        try:
            config = config.with_setting(setting, value)
        except ConfigError as error:
            raise ConfigError(f"{flag}: {error}") from None
    return config


def how_to_train(options: argparse.Namespace) -> dict[str, Any]:
    """How long, who is told at the end, and whether what happens is printed."""
    from vnq_colab.delivery.notify import find_urls, notify_session

    on_finish = functools.partial(notify_session, urls=find_urls(options.notify))
    return {"hours": hours_left(options), "on_finish": on_finish, "quiet": options.json}


def hours_left(options: argparse.Namespace) -> float | None:
    """Those of --hours, else what Colab leaves this machine; elsewhere None: there is no limit."""
    from vnq_colab.colab import is_colab

    return vnq.describe_machine().hours_left if options.hours is None and is_colab() else options.hours


def words_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The flags of training as a person wrote them, for another machine."""
    given = {name: getattr(options, name[2:].replace("-", "_")) for name in TRAINING.split()
             if name not in ("--profile", "--hours", "--notify")}
    return tuple(word for name, value in given.items() if value not in (None, FLAGS[name].get("default"))
                 for part in (value if isinstance(value, list) else [value]) for word in (name, str(part)))


def judging_options(options: argparse.Namespace,
                    names: tuple[str, ...] = ("gates", "slippage", "haircut", "capital")) -> dict[str, Any]:
    """The flags that judge in another way than the run's own verdict: gates, costs, capital or days."""
    settings = {name: value for name in names if (value := getattr(options, name)) not in (None, "honest")}
    return settings | ({"days": (options.first, options.last)} if options.first or options.last else {})


def require_judged(prepared: "Prepared", config: RunConfig, options: argparse.Namespace) -> None:
    """Refuses days and a symbol that will not be judged, before hours of training."""
    from vnq_colab.data.splits import yearly_folds
    from vnq_colab.delivery.validate import judged_days
    from vnq_colab.training.trainer import judged_symbols

    days, symbols = prepared.panel.days, judged_symbols(prepared.panel, config)[0]
    folds = yearly_folds(days, config.folds, purge_days=config.task.purge_days)
    judged_days(folds, (options.first, options.last), days)
    require_known(options.show_predictions or symbols[0], symbols, "symbol")


def _pairs(texts: list[str], flag: str) -> list[tuple[str, str]]:
    """["a=b"] -> [("a", "b")]."""
    for text in texts:
        if "=" not in text:
            raise ConfigError(f"{flag} {text!r}: write it as {EXAMPLES[flag]}.")
    parts = (text.rpartition("=") for text in texts)
    return [(name.strip(), value.strip()) for name, _, value in parts]
