"""The tables of an evening: written whole, kept when the evening is over, and read again as our own forecasts."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.delivery.paper import DAY, is_booked
from vnq_colab.delivery.portfolio import MOST_BYTES
from vnq_colab.errors import VnqError
from vnq_colab.files import read_bytes, write_atomic


def keep(path: Path, rows: pd.DataFrame, warnings: list[str], *, is_seen: bool,
         before: Callable[[Path, bytes], Any] | None = None) -> Path:
    """Writes a day's table, after what is to be there `before`, and gives where it is.

    What was known on an evening that is over stays: there are later ones, the orders were booked, or the models have
    seen (`is_seen`) what came. Another table then goes beside it, and a sentence to the warnings.
    """
    text = rows.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%d", float_format="%.4f").encode()
    is_real = path.exists() and (path.parent.name == "orders" or _forecast(path) is not None)
    booked = is_booked(path)
    if is_real and read_bytes(path, MOST_BYTES) != text:
        if is_seen or booked or _days(path.parent)[-1] > path:
            path = path.with_name(f"{path.stem}_later.csv")
            warnings.append(f"what was known on the evening of {path.stem[:10]} stays in {path.parent.name}/; what "
                            f"comes out now differs, and goes to {path.name}")
            before = None
        else:
            warnings.append(f"{path.parent.name}/{path.name} is replaced: prices, models or portfolio were others")
    if before is not None and not booked:
        before(path, text)
    write_atomic(path, lambda file: file.write(text))
    return path


def own_forecasts(folder: Path, until: str, most: int) -> pd.DataFrame:
    """Symbol, date and score of the newest evenings' rankings, at most so many, that were real forecasts."""
    tables = [_forecast(path) for path in [path for path in _days(folder) if path.stem <= until][-most:]]
    return pd.concat([pd.DataFrame({"symbol": [], "date": [], "score": []}), *tables], ignore_index=True)


def _days(folder: Path) -> list[Path]:
    """The tables of a folder that bear a day's name, oldest first."""
    return sorted(path for path in folder.glob("*.csv") if DAY.fullmatch(path.stem))


def _forecast(path: Path) -> pd.DataFrame | None:
    """A ranking by models that had not seen later days; None for another one, of an earlier version, or damaged."""
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path, MOST_BYTES)), usecols=["symbol", "date", "score", "trained_to"],
                            parse_dates=["date"])
        return table if (table["trained_to"].astype(str) <= path.stem).all() else None
    except (ValueError, VnqError):
        return None
