"""The commands in a terminal: `python -m vnq_colab COMMAND`.

Exit codes: 0 done, 2 bad input (one sentence on stderr), 3 paused (resume goes on), 4 finished but some symbols, or
all trials of a search, failed, 1 a defect of ours.
"""

import os
import sys
from pathlib import Path

from vnq_colab import __version__, arguments, commands
from vnq_colab.commands import BAD_INPUT, DONE, PAUSED
from vnq_colab.delivery.notify import find_urls, notify
from vnq_colab.errors import VnqError
from vnq_colab.files import storage_error
from vnq_colab.layout import Workspace, find_root
from vnq_colab.progress import stage

FLAGS = {
    commands.run: f"{arguments.PRICES} {arguments.TRAINING} {arguments.JUDGING}",
    commands.prepare: arguments.PRICES,
    commands.train: f"{arguments.TRAINING} --part --take-over",
    commands.search: "--family --trials --folds:search --over --suggest --constraints --profile --hours --symbols "
                     "--recipe --epochs --members --checkpoint-minutes --seed --set",
    commands.resume: "--run --hours --take-over --notify",
    commands.status: "--run",
    commands.validate: f"--run {arguments.JUDGING}",
    commands.export: "--run --onnx --int8",
    commands.deploy: "--run:bundle --force",
    commands.rollback: "--to:bundle",
    commands.predict: f"{arguments.PRICES} --models --portfolio --capital --paper --collect --all --notify "
                      "--notify-orders",
    commands.weekly: f"{arguments.PRICES} {arguments.TRAINING} {arguments.WEEK}",
    commands.schedule: "--weekly --daily --system --paper --install --print",
    commands.tidy: "--keep --delete",
    commands.doctor: "--profile --sync --remote",
}


def main(words: list[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    options = _parser().parse_args(words)
    ws = Workspace(Path(options.root) if options.root else find_root())
    try:
        with stage(options.command.__name__, quiet=options.json):
            return options.command(ws, options)
    except VnqError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if options.command is commands.predict:  # it may be an evening at which nobody looks
            notify(options.notify or find_urls(), "vnq_colab: predict failed", str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        goes_on = options.command in (commands.run, commands.train, commands.search, commands.resume)
        print("Interrupted." + " The same command goes on." * goes_on, file=sys.stderr)
        return PAUSED
    except BrokenPipeError:  # the reader of our output went away: nothing of ours is lost
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # a disk, a folder or a name: not ours to mend
        print(f"StorageError: {storage_error(error.filename or ws.root, error)}", file=sys.stderr)
        return BAD_INPUT


def _parser() -> arguments.Parser:
    parser = arguments.Parser(prog="python -m vnq_colab", epilog=arguments.BEGIN_WITH,
                              description="Train, judge and export a forecaster for each stock of a market.")
    parser.add_argument("--version", action="version", version=f"vnq_colab {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=arguments.Parser)
    for command, names in FLAGS.items():
        sub = subparsers.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        for name in f"--root --json {names}".split():  # what follows a colon tells two of one name apart
            sub.add_argument(name.partition(":")[0], **arguments.FLAGS[name])
        sub.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
