"""Damaged and unusual files of every format: read rightly or refused in one sentence, never wrong in silence."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.prices import load_prices
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import DataError

PRICES = ["open", "high", "low", "close"]


def written(rows, header, *, date="%Y-%m-%d", unit=1, decimals=2, newest_first=False):
    """Lines of cells, the header first; `header` is {theirs: ours}, an empty ours gives zeros."""
    table = rows.iloc[::-1] if newest_first else rows
    columns = []
    for ours in header.values():
        if ours == "date":
            columns.append(table["date"].dt.strftime(date))
        elif ours in PRICES:
            columns.append((table[ours] / unit).map(lambda price: f"{price:.{decimals}f}"))
        else:
            columns.append(table[ours].astype(str) if ours else pd.Series("0", index=table.index))
    return [list(header), *map(list, zip(*columns, strict=True))]


def own(rows):
    return "prices.csv", written(rows, {name: name for name in ("symbol", "date", *PRICES, "volume")}, decimals=0)


def own_thousands(rows):
    return "all.csv", written(rows, {name: name for name in ("symbol", "date", *PRICES, "volume")}, unit=1000)


def cafef(rows, fixed="", name="CafeF.HSX.Upto31.12.2025.csv", decimals=2):
    header = {"<Ticker>": "symbol", "<DTYYYYMMDD>": "date", f"<Open{fixed}>": "open", f"<High{fixed}>": "high",
              f"<Low{fixed}>": "low", f"<Close{fixed}>": "close", "<Volume>": "volume"}
    return name, written(rows, header, date="%Y%m%d", unit=1000, decimals=decimals, newest_first=True)


def amibroker(rows):
    return cafef(rows[rows["symbol"] == "SYN001"], "Fixed", "excel_syn001.csv", 4)


def vnstock(rows):
    header = {"time": "date"} | {name: name for name in (*PRICES, "volume")} | {"amounts": ""}
    return "SYN002.csv", written(rows[rows["symbol"] == "SYN002"], header, unit=1000)


def cophieu68(rows):
    header = {"Date": "date", "Close": "close", "Volume": "volume", "Open": "open", "High": "high", "Low": "low",
              "Foreign Buy": "", "Foreign Sell": "", "Foreign Value": ""}
    name, lines = "SYN003.csv", written(rows[rows["symbol"] == "SYN003"], header, date="%d/%m/%Y", unit=1000,
                                        newest_first=True)
    return name, [lines[0], *([*line[:2], f"{int(line[2]):,}", *line[3:]] for line in lines[1:])]


def vndirect(rows):
    """Raw prices, twice the adjusted ones before a split; the adjusted close is rounded to 100 VND."""
    rows = rows[rows["symbol"] == "SYN001"].reset_index(drop=True)
    times = np.where(np.arange(len(rows)) < len(rows) // 2, 2, 1)
    raw = rows.assign(adjusted=(rows["close"] / 100).round().astype(int) * 100, row=np.arange(len(rows)),
                      **{name: rows[name] * times for name in PRICES})
    return "SYN001.csv", written(raw, {"": "row", "Date": "date", "High": "high", "Low": "low", "Open": "open",
                                       "Close": "close", "Volume": "volume", "Adj Close": "adjusted"},
                                 date="%d/%m/%Y", decimals=0)


def yahoo(rows):
    rows = rows[rows["symbol"] == "SYN002"]
    lines = written(rows, {"Price": "date", "Close": "close", "High": "high", "Low": "low", "Open": "open",
                           "Volume": "volume"}, decimals=4)
    return "download.csv", [lines[0], ["Ticker", *["SYN002.VN"] * 5], ["Date", *[""] * 5], *lines[1:]]


def vietnamese(rows):
    header = {"Mã": "symbol", "Ngày": "date", "Giá mở cửa": "open", "Giá cao nhất": "high", "Giá thấp nhất": "low",
              "Giá đóng cửa": "close", "Khối lượng": "volume"}
    return "lich su gia.csv", written(rows, header, date="%d/%m/%Y", unit=1000)


FORMATS = [own, own_thousands, cafef, amibroker, vnstock, cophieu68, vndirect, yahoo, vietnamese]


# ---------------------------------------------------------------- mutations of the cells: (random, lines) -> lines
def swap_columns(random, lines):
    first, second = random.choice(len(lines[0]), 2, replace=False)
    order = np.arange(len(lines[0]))
    order[[first, second]] = second, first
    return [[line[place] for place in order] if len(line) == len(order) else line for line in lines]


def swap_headers(random, lines):
    return [swap_columns(random, lines[:1])[0], *lines[1:]]


def group_thousands(random, lines):
    mark = random.choice([",", ".", " "])

    def grouped(cell):
        whole, _, decimals = cell.partition(".")
        if not whole.isdigit() or (len(whole) == 8 and whole.startswith("20")):
            return cell
        text = f"{int(whole):,}".replace(",", str(mark))
        return text + (("," if mark == "." else ".") + decimals if decimals else "")

    return [lines[0], *([grouped(cell) for cell in line] for line in lines[1:])]


def decimal_commas(random, lines):
    return [lines[0], *([cell.replace(".", ",") if cell.replace(".", "").isdigit() else cell for cell in line]
                        for line in lines[1:])]


def other_dates(random, lines):
    form = str(random.choice(["%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d.%m.%Y", "%Y-%m-%d 00:00:00",
                              "%Y-%m-%dT00:00:00+07:00", "%d-%b-%Y"]))

    def as_form(cell):
        is_day = len(cell) == 10 and cell[4] + cell[7] == "--"
        return pd.Timestamp(cell).strftime(form) if is_day else cell

    return [[as_form(cell) for cell in line] for line in lines]


def other_unit(random, lines):
    """Prices in the other unit: VND instead of thousand VND, or the other way round."""
    places = [place for place, name in enumerate(lines[0]) if any(
        part in name.lower() for part in ("open", "high", "low", "close", "gi"))]
    levels = [float(cell) for line in lines[3:6] if len(line) > max(places, default=99) for cell in [line[places[0]]]
              if cell.replace(".", "").isdigit()]
    factor = 1000 if levels and max(levels) < 900 else 0.001

    def scaled(cell):
        try:
            return f"{float(cell) * factor:.10g}"
        except ValueError:
            return cell

    return [lines[0], *([scaled(cell) if place in places else cell for place, cell in enumerate(line)]
                        for line in lines[1:])]


def delete_lines(random, lines):
    keep = random.random(len(lines)) > random.choice([0.02, 0.3, 0.97])
    return [line for line, kept in zip(lines, keep, strict=True) if kept]


def repeat_header(random, lines):
    return [*lines, *lines[:1], *lines[1: random.integers(1, len(lines) + 1)]] if lines else lines


def shuffle_lines(random, lines):
    n_headers = 3 if lines and lines[0][0] == "Price" else 1
    return lines[:n_headers] + [lines[n_headers:][place] for place in random.permutation(len(lines[n_headers:]))]


def empty_cells(random, lines):
    return [["" if random.random() < 0.01 else cell for cell in line] for line in lines]


def drop_column(random, lines):
    place = random.integers(len(lines[0]) - ("Adj Close" in lines[0]))  # without it nobody knows of the split
    return [line[:place] + line[place + 1:] for line in lines]


CELLS = [swap_columns, swap_headers, group_thousands, decimal_commas, other_dates, other_unit,
         delete_lines, repeat_header, shuffle_lines, empty_cells, drop_column]


# ------------------------------------------------------------------ mutations of the bytes: (random, data) -> data
def truncate(random, data):
    return data[: random.integers(len(data) + 1)]


def wrong_delimiter(random, data):
    wrong = bytes(random.choice(list(b";\t| ")).astype("uint8").tobytes())
    head, line, body = data.partition(b"\n")
    part = random.integers(3)
    return (head.replace(b",", wrong) if part != 1 else head) + line + (body.replace(b",", wrong) if part else body)


def other_encoding(random, data):
    text = data.decode("utf-8", errors="replace")
    return text.encode(str(random.choice(["utf-16", "utf-8-sig", "cp1258", "latin-1", "utf-16-le"])), errors="replace")


def mixed_encoding(random, data):
    place = random.integers(len(data) + 1)
    return data[:place] + "Cổ tức".encode(str(random.choice(["utf-8", "utf-16"]))) + b"\xe9\xff" + data[place:]


def line_ends(random, data):
    return data.replace(b"\n", [b"\r\n", b"\r", b"\n\n"][random.integers(3)])


def nul_bytes(random, data):
    place = random.integers(len(data) + 1)
    return data[:place] + b"\0" * int(random.integers(1, 40)) + data[place:]


def flip_bytes(random, data):
    changed = bytearray(data)
    for place in random.integers(len(data), size=random.integers(1, 6)) if data else ():
        changed[place] ^= 1 << random.integers(8)
    return bytes(changed)


def nothing(random, data):
    return [b"", b"\n", b"   ", b"\xef\xbb\xbf", b"a"][random.integers(5)]


def junk_around(random, data):
    return [b"\n\n" + data, data + b"\n\n\n", data + b"THE END", data * 2][random.integers(4)]


BYTES = [truncate, wrong_delimiter, other_encoding, mixed_encoding, line_ends, nul_bytes, flip_bytes, nothing,
         junk_around]


# ------------------------------------------------------------------------------------------------------------- cases
def as_text(lines, random, done):
    delimiter = ";" if random.random() < 0.15 else ","
    quoted = random.random() < 0.8  # else a comma in a number makes a field of its own
    done += [] if quoted else ["not quoted"]

    def cell_of(cell):
        return f'"{cell}"' if quoted and delimiter in cell else cell

    return "\n".join(delimiter.join(map(cell_of, line)) for line in lines).encode()


def packed(random, name, lines, data):
    """The file, or a parquet of its cells, or a zip that holds it; and its name."""
    choice = random.random()
    if choice < 0.05 and lines and name == "prices.csv" and len({*lines[0]}) == len(lines[0]):
        table = pd.DataFrame([line for line in lines[1:] if len(line) == len(lines[0])], columns=lines[0])
        file = io.BytesIO()
        table.to_parquet(file)
        return "prices.parquet", file.getvalue()
    if choice < 0.15:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as folder:
            folder.writestr(name, data)
        return "prices.zip", file.getvalue()
    return name, data


def some_markets(seed):
    """[(the true prices by symbol and date, the files of every format that hold them)]."""
    markets = [synthetic_prices(3, n_days, seed=seed + n_days) for n_days in (24, 60, 130)]
    return [(rows.set_index(["symbol", "date"])[PRICES], [write(rows) for write in FORMATS]) for rows in markets]


def a_case(random, markets):
    """(name, content, the names of its mutations, the truth) of one mutated file."""
    truth, files = markets[random.integers(len(markets))]
    name, lines = files[random.integers(len(files))]
    done = []
    for change in random.permutation(np.array(CELLS, dtype=object))[: random.choice([0, 1, 1, 2])]:
        if len(lines) > 5:
            lines = change(random, lines)
            done.append(change.__name__)
    data = as_text(lines, random, done)
    for change in random.permutation(np.array(BYTES, dtype=object))[: random.choice([0, 1, 1, 2])]:
        data = change(random, data)
        done.append(change.__name__)
    name, data = packed(random, name, lines, data)
    if random.random() < 0.02:  # what is packed is damaged, too
        data = flip_bytes(random, data)
        done.append("flip_bytes")
    return name, data, done, truth


def flaw_of(table, truth, done):
    """What is wrong with a table that was read, in words; "" when nothing is."""
    found = table[PRICES].to_numpy()
    if table.empty or not np.isfinite(found).all() or (found <= 0).any():
        return "no valid table"
    if table.duplicated(["symbol", "date"]).any():
        return "a day twice"
    true = truth.reindex(pd.MultiIndex.from_frame(table[["symbol", "date"]])).to_numpy()  # [rows, 4]
    known = np.isfinite(true[:, 0])
    found, true = found[known], true[known]
    rounding = 55 / true[:, 3:] if "raw_close" in table else 0  # VNDirect's 100 VND
    checked = [3] if "empty_cells" in done else [0, 1, 2, 3]  # cleaning repairs an open, high or low that is missing

    def is_away(from_these):
        return (np.abs(found / from_these - 1) > np.maximum(rounding, 0.001))[:, checked].any(axis=1)

    wrong = is_away(true)
    if "swap_headers" in done:  # nobody can tell open from close
        wrong &= is_away(true[:, [3, 1, 2, 0]])
    if {"flip_bytes", "mixed_encoding", "truncate", "junk_around"} & set(done):  # a digit may have become another one
        wrong &= is_away(2 * true) & is_away(true / 2)  # and the header of VNDirect's adjusted close another word
        return "wrong prices" if len(true) > 5 and wrong.mean() > 0.2 else ""
    if not known.all():
        return f"{(~known).sum()} rows that never were, such as {table[~known].iloc[0].to_dict()}"
    return f"{wrong.sum()} wrong prices of {len(true)}" if wrong.any() else ""


def fuzz(folder, seed, n_files):
    """(how many were read, {refusal: how often}); asserts that no case ends otherwise."""
    random = np.random.default_rng(seed)
    markets = some_markets(seed)
    n_read = 0
    for number in range(n_files):
        name, data, done, truth = a_case(random, markets)
        path = folder / str(number) / name
        path.parent.mkdir()
        path.write_bytes(data)
        try:
            table, report = load_prices(path)
        except DataError as error:
            assert "\n" not in str(error) and str(error).endswith(".") and len(str(error)) > 20, (number, done, error)
        except Exception as error:
            raise AssertionError(f"seed {seed}, file {number} {name}, {done}") from error
        else:
            n_read += 1
            is_guessed = any("action" in finding.issue for finding in report.findings)  # where days are missing
            flaw = "" if is_guessed else flaw_of(table, truth, done)
            assert not flaw, f"seed {seed}, file {number} {name}, {done}: {flaw}"
        path.unlink()
        path.parent.rmdir()
    return n_read


@pytest.mark.parametrize("n_files", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_files_are_read_rightly_or_refused_in_words(tmp_path, n_files):
    assert 0.3 * n_files < fuzz(tmp_path, 1, n_files) < 0.9 * n_files  # else it tests only refusals, or nothing
