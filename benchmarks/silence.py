"""How long a command says nothing: the longest silences of its output, and what it had said before each.

    python benchmarks/silence.py prepare --root /tmp/ws --data PRICES.parquet
    python benchmarks/silence.py --terminal train --root /tmp/ws --families trees --folds 1

Output and errors count as one; `--terminal` gives the command a terminal (not on Windows), in which lines are replaced.
Ends with exit code 1 where a silence was longer than ten seconds. Adds a row to benchmarks/results/silence.csv.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from machine import keep

ROOT = Path(__file__).resolve().parents[1]
MOST_SECONDS = 10
N_SHOWN = 6


def listen(words: list[str], *, terminal: bool = False) -> tuple[int, list[tuple[float, str]]]:
    """The exit code of a command, and each of its silences: how long it was [s], and the last words before it."""
    if terminal:
        import pty

        ours, theirs = pty.openpty()
    else:
        ours, theirs = os.pipe()
    process = subprocess.Popen([sys.executable, "-m", "vnq_colab", *words], stdin=subprocess.DEVNULL, stdout=theirs,
                               stderr=theirs)
    os.close(theirs)
    silences, said, last = [], "(the start)", time.monotonic()
    while True:
        try:
            heard = os.read(ours, 65_536)
        except OSError:  # how a terminal ends on Linux
            heard = b""
        now = time.monotonic()
        silences.append((now - last, said))
        if not heard:
            return process.wait(), silences
        lines, last = heard.decode("utf-8", "replace").replace("\r", "\n").split("\n"), now
        said = next((line[:100] for line in reversed(lines) if line.strip()), said)


def main() -> None:
    words = sys.argv[1:]
    if terminal := words[:1] == ["--terminal"]:
        words = words[1:]
    if not words:
        sys.exit(__doc__)
    started = time.monotonic()
    code, silences = listen(words, terminal=terminal)
    wall, longest = time.monotonic() - started, sorted(silences, reverse=True)[:N_SHOWN]
    print(f"{' '.join(words)}: exit code {code}, {wall:.0f} s, {len(silences)} pieces of output; longest silences:")
    for seconds, said in longest:
        print(f"  {seconds:6.1f} s after: {said}")
    keep("silence", [{"command": words[0], "terminal": terminal, "seconds": round(wall, 1),
                      "longest silence [s]": round(longest[0][0], 1), "after": longest[0][1]}])
    sys.exit(longest[0][0] > MOST_SECONDS)


if __name__ == "__main__":
    main()
