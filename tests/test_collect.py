"""Collecting brings whole, verified files once, against a local server that behaves as the sites do."""

import contextlib
import http.server
import inspect
import io
import os
import sys
import threading
import time
import zipfile
from unittest import mock

import pandas as pd
import pytest

from vnq_colab.data import collect
from vnq_colab.data.collect import KINDS, collect_prices, download_drive
from vnq_colab.data.prices import read_prices
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import DataError
from vnq_colab.layout import Workspace

FRIDAY, THURSDAY, SUNDAY = "2025-11-21", "2025-11-20", "2025-11-23"
PAGE = b"<!DOCTYPE html><html><body>Sorry</body></html>"


def zip_of(day, kind="adjusted", first="SYN003"):
    """A zip as CafeF makes them: prices in thousand VND, newest first, members by exchange."""
    table = synthetic_prices(3, 60, last_day=day).iloc[::-1]
    lines = table["symbol"] + "," + table["date"].dt.strftime("%Y%m%d")
    for name in ("open", "high", "low", "close"):
        lines = lines + "," + (table[name] / 1000).round(2).astype(str)
    lines = lines + "," + table["volume"].astype(str)
    text = "<Ticker>,<DTYYYYMMDD>,<Open>,<High>,<Low>,<Close>,<Volume>\r\n" + "\r\n".join(lines) + "\r\n"
    text = text.replace("SYN003", first)
    if kind == "index":
        text = text.replace("SYN001", "VNINDEX").replace("SYN002", "HNX-INDEX").replace("SYN003", "VN30INDEX")
    stem = {"adjusted": "CafeF.HSX", "raw": "CafeF.RAW_HSX", "index": "CafeF.INDEX"}[kind]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # stored, not deflated: a flipped byte shows in the checksum only
        archive.writestr(zipfile.ZipInfo(f"{stem}.Upto{pd.Timestamp(day):%d.%m.%Y}.csv"), text)  # of no time of its own
    return file.getvalue()


def name_of(day, kind="adjusted"):
    return KINDS[kind].format(f"{pd.Timestamp(day):%d%m%Y}")


class Site:
    """What the server has, how its next answers fail (a status, or ("cut", bytes)), and what it was asked."""

    def __init__(self):
        self.files, self.trouble, self.asked = {}, [], []
        self.length, self.wait = None, 0  # what Content-Length says, None: the truth; seconds after each 1,000 bytes

    def publish(self, *days, kinds=("adjusted",), content=None):
        for day in days:
            for kind in kinds:
                path = f"/{day.replace('-', '')}/{name_of(day, kind)}"
                self.files[path] = content if content is not None else zip_of(day, kind)

    @property
    def sent(self):
        """The status of the answers that were no 404."""
        return [status for status, _ in self.asked if status != 404]


@pytest.fixture
def site(monkeypatch):
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = site.files.get(self.path)
            trouble = site.trouble.pop(0) if body is not None and site.trouble else None
            status = 404 if body is None else trouble if isinstance(trouble, int) else 200
            site.asked.append((status, self.path))
            if status != 200:
                return self.send_error(status)
            self.send_response(200)
            if site.length != "":
                self.send_header("Content-Length", str(len(body)) if site.length is None else site.length)
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side has given up
                while site.wait:
                    self.wfile.write(bytes(1000))
                    time.sleep(site.wait)
                self.wfile.write(body[:trouble[1]] if trouble else body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(collect, "RETRIES", collect.RETRIES.new(backoff_factor=0))
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def ws(tmp_path):
    return Workspace(tmp_path / "workspace")


def bring(ws, site, day=FRIDAY, kinds=("adjusted",)):
    with mock.patch.object(collect, "KINDS", {kind: KINDS[kind] for kind in kinds}):
        return collect_prices(ws, day=day, url=site.url)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- CafeF


def test_collect_brings_all_kinds_of_the_newest_day_and_they_can_be_read(ws, site):
    site.publish(THURSDAY, FRIDAY, kinds=tuple(KINDS))
    found = bring(ws, site, SUNDAY, tuple(KINDS))
    assert found.day == FRIDAY and found.skipped == () and found.notes == ()
    assert names_in(ws.raw) == sorted(name_of(FRIDAY, kind) for kind in KINDS)
    assert "3 files up to 2025-11-21" in repr(found) and "3 fetched, 0 already there" in repr(found)
    asked = [path for _, path in site.asked]
    assert asked[:3] == [f"/{day.replace('-', '')}/{name_of(day)}" for day in (SUNDAY, "2025-11-22", FRIDAY)]
    reading = read_prices(ws.raw)
    assert set(reading.prices["symbol"]) == {"SYN001", "SYN002", "SYN003"} and "VNINDEX" in set(reading.index["symbol"])
    assert reading.prices["date"].max() == pd.Timestamp(FRIDAY)
    assert reading.prices["close"].median() > 1000, "VND, not thousand VND"


def test_collect_fetches_nothing_twice(ws, site):
    site.publish(FRIDAY, kinds=tuple(KINDS))
    bring(ws, site, kinds=tuple(KINDS))
    before = len(site.sent)
    again = bring(ws, site, kinds=tuple(KINDS))
    assert len(site.sent) == before and len(again.skipped) == 3 and "0 fetched, 3 already there" in repr(again)


@pytest.mark.parametrize("trouble", [[503, 503], [429], [("cut", 1000), ("cut", 500)]])
def test_collect_tries_again_after_a_busy_server_and_a_cut_connection(ws, site, trouble):
    site.publish(FRIDAY)
    site.trouble = list(trouble)
    file = bring(ws, site).files[0]
    assert file.read_bytes() == zip_of(FRIDAY) and names_in(ws.raw) == [name_of(FRIDAY)]
    assert site.sent == [*(one if isinstance(one, int) else 200 for one in trouble), 200]


@pytest.mark.parametrize("trouble", [[503] * 4, [("cut", 1000)] * 3])
def test_collect_gives_up_after_some_tries_and_leaves_nothing_behind(ws, site, trouble):
    site.publish(FRIDAY)
    site.trouble = list(trouble)
    with pytest.raises(DataError, match="not received .*Try again later, or download it by hand into") as error:
        bring(ws, site)
    assert "\n" not in str(error.value) and not site.trouble and (not ws.raw.exists() or names_in(ws.raw) == [])


@pytest.mark.parametrize("content, said", [
    (PAGE, "not a whole zip"), (b"PK\3\4 nothing", "not a whole zip"), (b"", "not a whole zip"),
    (zip_of(THURSDAY).replace(b"SYN001", b"SYN002", 1), "a damaged zip"),
    (zip_of(THURSDAY).replace(b".csv", b".txt"), "a zip without a CSV")])
def test_collect_passes_over_what_is_no_sound_zip_and_says_so(ws, site, content, said):
    site.publish(THURSDAY)
    site.publish(FRIDAY, content=content)
    found = bring(ws, site)
    assert found.day == THURSDAY and f"{name_of(FRIDAY)} was passed over: {said}" in repr(found)
    assert names_in(ws.raw) == [name_of(THURSDAY)]


def test_collect_without_any_day_says_what_was_tried_and_what_to_do(ws, site):
    site.publish("2025-11-14", content=PAGE)
    site.publish("2025-11-10")
    with pytest.raises(DataError) as error:
        bring(ws, site)
    assert "no CafeF zip of the 11 days from 2025-11-11 to 2025-11-21" in str(error.value)
    assert "(10 × HTTP 404, 1 × not a whole zip)" in str(error.value)
    assert f"download the zips by hand into {ws.raw}" in str(error.value)
    assert bring(ws, site, "2025-11-20").day == "2025-11-10"


def test_collect_says_that_a_server_does_not_answer(ws, site):
    with pytest.raises(DataError, match="not received .*no connection: is this machine online?"):
        collect_prices(ws, day=FRIDAY, url="http://127.0.0.1:9")


def test_collect_names_a_missing_kind_and_unequal_days(ws, site):
    site.publish(FRIDAY)
    site.publish(THURSDAY, kinds=("raw",))
    notes = repr(bring(ws, site, kinds=tuple(KINDS)))
    assert "no index zip of 2025-11-11 to 2025-11-21 was found" in notes
    assert "not all of one day: adjusted 2025-11-21, raw 2025-11-20" in notes


def test_collect_removes_no_older_zip_and_says_which_are_not_needed(ws, site):
    site.publish(THURSDAY, kinds=("adjusted", "raw"))
    bring(ws, site, THURSDAY, ("adjusted", "raw"))
    by_hand = ws.raw / name_of("2025-10-01")
    by_hand.write_bytes(zip_of("2025-10-01"))
    site.publish(FRIDAY)
    found = bring(ws, site)
    days = (FRIDAY, THURSDAY, "2025-10-01")
    assert names_in(ws.raw) == sorted([name_of(THURSDAY, "raw"), *map(name_of, days)])
    assert (ws.raw / name_of(THURSDAY)).read_bytes() == zip_of(THURSDAY)
    assert found.notes == (f"{by_hand.name}, {name_of(THURSDAY)}: adjusted up to 2025-11-21 replaces it; without it, "
                           "reading is faster",)


def test_collect_of_an_earlier_day_keeps_the_newer_zip(ws, site):
    site.publish(THURSDAY, FRIDAY)
    newer = bring(ws, site).files[0]
    assert bring(ws, site, THURSDAY).notes == () and newer.exists()


def test_collect_takes_a_zip_that_was_brought_by_hand(ws, site):
    site.publish(FRIDAY)
    ws.raw.mkdir(parents=True)
    (ws.raw / name_of(FRIDAY)).write_bytes(zip_of(FRIDAY))
    assert bring(ws, site).skipped == (name_of(FRIDAY),) and site.sent == []
    (ws.raw / name_of(FRIDAY)).write_bytes(zip_of(FRIDAY)[:500])
    with pytest.raises(DataError, match="not a whole zip. Remove it, then collect again"):
        bring(ws, site)
    assert len((ws.raw / name_of(FRIDAY)).read_bytes()) == 500, "never overwritten"


@pytest.mark.parametrize("length", ["²", "-5", "", "12x", "9" * 5000, "1_000", "١٢٣"])
def test_collect_believes_no_length_that_is_none(ws, site, length):
    site.publish(FRIDAY)
    site.length = length if length.isascii() else length.encode().decode("latin-1")
    try:
        assert bring(ws, site).files[0].read_bytes() == zip_of(FRIDAY)
    except DataError as error:
        assert "not received" in str(error) or "not a whole zip" in str(error)
        assert "\n" not in str(error) and len(str(error)) < 1000


@pytest.mark.parametrize("length", ["99999999999", ""])
def test_collect_takes_nothing_that_no_zip_of_prices_can_be(ws, site, length, monkeypatch):
    monkeypatch.setattr(collect, "MOST_BYTES", 1000)
    site.publish(FRIDAY)
    site.length = length
    with pytest.raises(DataError, match="larger than 0 MB, which no zip of CafeF's is. Look at it by hand"):
        bring(ws, site)
    assert not ws.raw.exists() or names_in(ws.raw) == []


def test_collect_ends_however_slowly_a_server_answers(ws, site, monkeypatch):
    monkeypatch.setattr(collect, "MOST_SECONDS", 1)
    site.publish(FRIDAY)
    site.wait, site.length = 0.1, ""
    begun = time.monotonic()
    with pytest.raises(DataError, match="not received .not all of it came within 0 minutes"):
        bring(ws, site)
    assert time.monotonic() - begun < 20 and names_in(ws.raw) == []
    site.wait = 0


def test_collect_passes_over_a_zip_that_unpacks_beyond_measure(ws, site, monkeypatch):
    monkeypatch.setattr(collect, "MOST_UNPACKED", 1000)
    site.publish(FRIDAY)
    with pytest.raises(DataError, match="1 × a zip that unpacks to more than 0 MB"):
        bring(ws, site)


def test_collect_shows_how_much_of_a_zip_has_come(ws, site, monkeypatch):
    said = []
    monkeypatch.setattr(collect, "now", lambda *what: said.append(what))
    site.publish(FRIDAY)
    bring(ws, site)
    assert said[-1] == (f"{name_of(FRIDAY)}: 0.0 MB", 1.0)


def test_collect_refuses_a_day_that_is_none(ws):
    with pytest.raises(DataError, match="'21/11/2025' is not a date"):
        collect_prices(ws, day="21/11/2025")


# --- Google Drive: gdown's address is fixed, so its functions are replaced by ones that do what Google does

DRIVE_ID = "1AbCdEfGhIjKlMnOpQrStUvWx_-0"
CSV = b"<Ticker>,<DTYYYYMMDD>,<Open>\nFPT,20251121,100\n"


@pytest.fixture
def drive(monkeypatch, tmp_path_factory):
    """A module gdown for the process that fetches."""
    import gdown

    options = {"id": "", "output": "", "quiet": True, "resume": True}
    inspect.signature(gdown.download).bind(**options)
    inspect.signature(gdown.download_folder).bind(**options)
    place = tmp_path_factory.mktemp("gdown")
    (place / "gdown.py").write_text(GDOWN)
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)
    return Drive(place)


GDOWN = """
import pathlib, time
HERE = pathlib.Path(__file__).parent

def download(*, id, output, quiet, resume):
    name, content = eval((HERE / "answers").read_text())[0][id]
    file = pathlib.Path(output, name)
    if not file.exists():
        with open(HERE / "asked", "a") as asked:
            asked.write(id + "\\n")
        if isinstance(content, str):
            raise RuntimeError(content)
        if isinstance(content, float):
            time.sleep(content)
        file.write_bytes(bytes(content) if isinstance(content, int) else content)
    print("noise")
    return str(file)

def download_folder(*, id, output, quiet, resume):
    listing = eval((HERE / "answers").read_text())[1]
    return listing and [download(id=file, output=output, quiet=quiet, resume=resume) for file in listing]
"""


class Drive:
    """What Drive answers: {id: (name, content, a number of bytes, of seconds (float), or what gdown complains of)}."""

    def __init__(self, place):
        self.place = place
        self.answer({DRIVE_ID: ("prices.csv", CSV)})

    def answer(self, files, listing=None):
        (self.place / "answers").write_text(repr((files, listing)))

    @property
    def asked(self):
        return (self.place / "asked").read_text().split() if (self.place / "asked").exists() else []


@pytest.mark.parametrize("link", [
    f"https://drive.google.com/file/d/{DRIVE_ID}/view?usp=sharing", f"https://drive.google.com/open?id={DRIVE_ID}",
    f"https://drive.google.com/uc?export=download&id={DRIVE_ID}", f" https://drive.google.com/uc?id={DRIVE_ID}\n",
    f"https://drive.google.com/file/u/1/d/{DRIVE_ID}/edit", f"https://docs.google.com/uc?id={DRIVE_ID}&confirm=t",
    f"https://drive.usercontent.google.com/download?id={DRIVE_ID}&export=download"])
def test_drive_takes_every_form_of_a_file_link_and_fetches_once(tmp_path, drive, link):
    file = download_drive(link, tmp_path / "new")
    assert file == tmp_path / "new" / "prices.csv" and file.read_bytes() == CSV
    assert download_drive(f"https://drive.google.com/open?id={DRIVE_ID}", tmp_path / "new") == file
    assert drive.asked == [DRIVE_ID]


@pytest.mark.parametrize("folder", [f"drive/folders/{DRIVE_ID}?usp=sharing", f"drive/u/0/folders/{DRIVE_ID}"])
def test_drive_brings_the_new_files_of_a_folder(tmp_path, drive, folder):
    for listing in (["a" * 20], ["a" * 20, "b" * 20]):
        drive.answer({"a" * 20: ("FPT.csv", CSV), "b" * 20: ("VCB.csv", CSV)}, listing)
        assert download_drive(f"https://drive.google.com/{folder}", tmp_path) == tmp_path
    assert names_in(tmp_path) == ["FPT.csv", "VCB.csv"] and drive.asked == ["a" * 20, "b" * 20]


@pytest.mark.parametrize("answer, said", [
    ("Failed to retrieve file url:\n\n\tToo many users have viewed or\n\tdownloaded this file recently.",
     "Too many users have viewed or downloaded this file recently.*wait up to 24 hours"),
    ("Cannot retrieve the public link of the\n\tfile.", "public link of the file.*General access, Anyone with the"),
    (PAGE, "could not be fetched .a web page came instead of data")])
def test_drive_says_why_there_is_no_file_and_what_to_do(tmp_path, drive, answer, said):
    drive.answer({DRIVE_ID: ("prices.csv", answer)})
    with pytest.raises(DataError, match=said) as error:
        download_drive(f"https://drive.google.com/open?id={DRIVE_ID}", tmp_path)
    assert "\n" not in str(error.value) and names_in(tmp_path) == []


def test_drive_is_not_waited_for_without_end_and_fills_no_disk(tmp_path, drive, monkeypatch):
    drive.answer({DRIVE_ID: ("prices.csv", 60.0)})
    monkeypatch.setattr(collect, "MOST_SECONDS", 1)
    with pytest.raises(DataError, match="could not be fetched .it takes too long"):
        download_drive(f"https://drive.google.com/open?id={DRIVE_ID}", tmp_path)
    monkeypatch.setattr(collect, "MOST_SECONDS", 60)
    monkeypatch.setattr(collect, "MOST_FETCHED", 100_000)
    drive.answer({DRIVE_ID: ("prices.csv", 1_000_000)})
    if sys.platform != "win32":
        with pytest.raises(DataError, match="could not be fetched .*File too large"):
            download_drive(f"https://drive.google.com/open?id={DRIVE_ID}", tmp_path)
        assert (tmp_path / "prices.csv").stat().st_size <= 100_000


def test_drive_says_that_a_folder_is_not_shared(tmp_path, drive):
    with pytest.raises(DataError, match="no public link.*Anyone with the link"):
        download_drive(f"https://drive.google.com/drive/folders/{DRIVE_ID}", tmp_path)


@pytest.mark.parametrize("link", ["https://example.com/prices.csv", "https://drive.google.com/drive/my-drive",
                                  f"https://docs.google.com/spreadsheets/d/{DRIVE_ID}/edit", "FPT.csv",
                                  f"https://drive.google.com.example.com/open?id={DRIVE_ID}"])
def test_drive_refuses_what_is_no_share_link(tmp_path, link):
    with pytest.raises(DataError, match="not a share link of Google Drive"):
        download_drive(link, tmp_path)


def test_drive_without_gdown_is_an_error_with_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError, match="pip install gdown"):
        download_drive(f"https://drive.google.com/open?id={DRIVE_ID}", tmp_path)
