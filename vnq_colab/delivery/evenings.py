"""The tables of an evening: written whole, kept when the evening is over, and read again as our own forecasts."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.delivery.paper import DAY, is_booked
from vnq_colab.delivery.portfolio import MOST_BYTES
from vnq_colab.errors import VnqError
from vnq_colab.files import read_bytes, write_atomic


@dataclass(frozen=True)
class Keeper:
    """Writes the tables of a day; what was known on an evening that is over stays, and the rest goes beside it."""

    is_seen: bool  # the models were trained on days after this one
    warnings: list[str]  # get a sentence for each table that stays or is replaced

    def write(self, path: Path, rows: pd.DataFrame, before: Callable[[Path, bytes], Any] = lambda path, text: None
              ) -> Path:
        """Writes a table, after what is to be there `before`; gives where it is."""
        text = rows.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%d", float_format="%.4f").encode()
        if path.exists() and DAY.fullmatch(path.stem) and _is_real(path) and read_bytes(path, MOST_BYTES) != text:
            if self.is_seen or is_booked(path) or _days(path.parent)[-1] > path:
                self.warnings.append(f"{path} stays: it says what was known on that evening. What comes out for that "
                                     f"day now differs, and goes to {path.stem}_later.csv")
                path, before = path.with_name(f"{path.stem}_later.csv"), lambda path, text: None
            else:
                self.warnings.append(f"{path}: another result for this evening, by other prices, models or portfolio, "
                                     "is replaced")
        if not is_booked(path):
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


def _is_real(path: Path) -> bool:
    """Whether a day's table was made by models that had not seen later days; orders always are."""
    return path.parent.name == "orders" or _forecast(path) is not None


def _forecast(path: Path) -> pd.DataFrame | None:
    """A ranking that was a real forecast; None for others, of an earlier version, or damaged."""
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path, MOST_BYTES)), usecols=["symbol", "date", "score", "trained_to"],
                            parse_dates=["date"])
        return table if (table["trained_to"].astype(str) <= path.stem).all() else None
    except (ValueError, VnqError, OSError):
        return None
