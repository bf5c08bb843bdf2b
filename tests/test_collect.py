"""Collecting brings whole, verified files once, against a local server that behaves as the sites do."""

import http.server
import inspect
import io
import json
import sys
import threading
import time
import types
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from vnq_colab.data import collect
from vnq_colab.data.collect import KINDS, collect_prices, download_drive
from vnq_colab.data.downloads import MANIFEST
from vnq_colab.data.prices import read_prices
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import ConfigError, DataError
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
        self.files, self.trouble, self.asked, self.ranges, self.etags = {}, [], [], True, True

    def publish(self, *days, kinds=("adjusted",), content=None):
        for day in days:
            for kind in kinds:
                path = f"/{day.replace('-', '')}/{name_of(day, kind)}"
                self.files[path] = content if content is not None else zip_of(day, kind)

    @property
    def sent(self):
        """(status, file) of the answers that were no 404."""
        return [(status, Path(path).name) for status, path in self.asked if status != 404]


@pytest.fixture
def site(monkeypatch):
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = site.files.get(self.path)
            trouble = site.trouble.pop(0) if body is not None and site.trouble else None
            if body is None or isinstance(trouble, int):
                site.asked.append((trouble if body is not None else 404, self.path))
                return self.send_error(site.asked[-1][0])
            tag, first = f'"{hash(body)}"', 0
            if site.ranges and "Range" in self.headers and self.headers.get("If-Range", tag) == tag:
                first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if first and first >= len(body):
                site.asked.append((416, self.path))
                return self.send_error(416)
            site.asked.append((206 if first else 200, self.path))
            self.send_response(site.asked[-1][0])
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - first))
            if site.etags:
                self.send_header("ETag", tag)
            self.end_headers()
            self.wfile.write(body[first:first + trouble[1]] if trouble else body[first:])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(collect, "RETRY_SECONDS", (0, 0, 0))
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Where downloads are on their way lies below it."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def ws(tmp_path):
    return Workspace(tmp_path / "workspace")


def bring(ws, site, day=FRIDAY, kinds=("adjusted",), **options):
    return collect_prices(ws, day=day, url=site.url, kinds=kinds, quiet=True, **options)


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)


# --- CafeF


def test_collect_brings_all_kinds_of_the_newest_day_and_they_can_be_read(ws, site):
    site.publish(THURSDAY, FRIDAY, kinds=tuple(KINDS))
    found = bring(ws, site, SUNDAY, tuple(KINDS))
    assert found.day == FRIDAY and found.skipped == () and found.notes == ()
    assert visible(ws.raw) == sorted(name_of(FRIDAY, kind) for kind in KINDS)
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


def test_collect_fetches_again_what_was_changed_on_the_disk(ws, site):
    site.publish(FRIDAY)
    file = bring(ws, site).files[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"?")
    assert bring(ws, site).skipped == () and file.read_bytes() == whole


def test_collect_tries_again_after_a_busy_server(ws, site):
    site.publish(FRIDAY)
    site.trouble = [503, 503]
    assert bring(ws, site).day == FRIDAY
    assert [status for status, _ in site.sent] == [503, 503, 200]


def test_collect_waits_longer_before_each_further_try(ws, site, monkeypatch):
    monkeypatch.setattr(collect, "RETRY_SECONDS", (0.05, 0.1))
    site.publish(FRIDAY)
    site.trouble, started = [502, 429], time.monotonic()
    bring(ws, site)
    assert time.monotonic() - started >= 0.15


@pytest.mark.parametrize("etags", [True, False])
def test_collect_goes_on_where_the_connection_was_cut(ws, site, etags):
    site.publish(FRIDAY)
    site.trouble, site.etags = [("cut", 1000), ("cut", 500)], etags
    file = bring(ws, site).files[0]
    assert file.read_bytes() == zip_of(FRIDAY)
    assert [status for status, _ in site.sent] == [200, 206, 206] and visible(ws.raw) == [name_of(FRIDAY)]


def test_collect_goes_on_in_a_later_session_with_what_waited_outside_the_workspace(ws, site, home):
    site.publish(FRIDAY)
    site.trouble = [("cut", 1000), 503, 503, 503]
    with pytest.raises(DataError, match=r"in 4 tries \(the last: HTTP 503\)\. Try again later, it goes on"):
        bring(ws, site)
    assert [path.name for path in ws.raw.iterdir()] == [], "nothing but whole files, not even a list of parts"
    assert [path.stat().st_size for path in home.rglob("*.part")] == [1000]
    bring(ws, site)
    assert site.sent[-1] == (206, name_of(FRIDAY)) and visible(ws.raw) == [name_of(FRIDAY)]
    assert not list(home.rglob("*.part"))


def test_collect_takes_no_part_of_another_day_or_for_another_folder(ws, site, tmp_path):
    site.publish(THURSDAY, FRIDAY)
    site.trouble = [("cut", 1000), 503, 503, 503]
    with pytest.raises(DataError):
        bring(ws, site, THURSDAY)
    bring(Workspace(tmp_path / "other"), site, THURSDAY)
    assert bring(ws, site).files[0].read_bytes() == zip_of(FRIDAY)
    assert [status for status, _ in site.sent[-2:]] == [200, 200]


def test_collect_appends_to_nothing_in_the_workspace_and_leaves_what_is_there(ws, site, monkeypatch):
    site.publish(THURSDAY, FRIDAY)
    site.trouble, opened = [("cut", 1000)], []
    real = io.open

    def watched(path, mode="r", *args, **options):
        opened.append((str(path), mode))
        return real(path, mode, *args, **options)

    monkeypatch.setattr("builtins.open", watched)
    thursday = bring(ws, site, THURSDAY).files[0]
    inode = thursday.stat().st_ino
    bring(ws, site)
    monkeypatch.undo()
    written = [(path, mode) for path, mode in opened if path.startswith(str(ws.raw)) and mode not in ("r", "rb")]
    assert written and {mode for _, mode in written} == {"xb"}, "each file is new and written in one go"
    assert any(mode == "ab" for _, mode in opened), "what is appended to lies elsewhere"
    assert thursday.stat().st_ino == inode and thursday.read_bytes() == zip_of(THURSDAY)


def test_collect_begins_anew_where_the_server_cannot_go_on(ws, site):
    site.publish(FRIDAY)
    site.trouble, site.ranges = [("cut", 1000)], False
    assert bring(ws, site).files[0].read_bytes() == zip_of(FRIDAY)
    assert [status for status, _ in site.sent] == [200, 200]


@pytest.mark.parametrize("etags", [True, False])
def test_collect_never_joins_parts_of_two_files(ws, site, etags):
    site.publish(FRIDAY)
    site.trouble, site.etags = [("cut", 1000), 503, 503, 503], etags
    with pytest.raises(DataError):
        bring(ws, site)
    again = zip_of(FRIDAY, first="SYN007")  # published anew, as long as before
    assert len(again) == len(zip_of(FRIDAY))
    site.publish(FRIDAY, content=again)
    assert bring(ws, site).files[0].read_bytes() == again
    assert site.sent[-1][0] == 200


def test_collect_begins_anew_when_what_the_site_has_is_shorter(ws, site):
    site.publish(FRIDAY)
    site.trouble, site.etags = [("cut", 4000), 503, 503, 503], False
    with pytest.raises(DataError):
        bring(ws, site)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("CafeF.HSX.csv", "<Ticker>")
    site.publish(FRIDAY, content=file.getvalue())
    assert bring(ws, site).files[0].read_bytes() == file.getvalue()
    assert [status for status, _ in site.sent[-2:]] == [416, 200]


@pytest.mark.parametrize("content, said", [
    (PAGE, "a web page instead of a zip"), (b"PK\3\4 nothing", "not a whole zip"), (b"", "not a whole zip"),
    (zip_of(THURSDAY).replace(b"SYN001", b"SYN002", 1), "a damaged zip"),
    (zip_of(THURSDAY).replace(b".csv", b".txt"), "a zip without a CSV")])
def test_collect_passes_over_what_is_no_sound_zip_and_says_so(ws, site, content, said):
    site.publish(THURSDAY)
    site.publish(FRIDAY, content=content)
    found = bring(ws, site)
    assert found.day == THURSDAY and f"{name_of(FRIDAY)} was passed over: {said}" in repr(found)
    assert visible(ws.raw) == [name_of(THURSDAY)]


def test_collect_without_any_day_says_what_was_tried_and_what_to_do(ws, site):
    site.publish("2025-11-14", content=PAGE)
    site.publish("2025-11-10")
    with pytest.raises(DataError) as error:
        bring(ws, site)
    assert "no CafeF zip of the 11 days from 2025-11-11 to 2025-11-21" in str(error.value)
    assert "(10 × HTTP 404, 1 × a web page instead of a zip)" in str(error.value)
    assert f"download the zips by hand into {ws.raw}" in str(error.value)
    assert bring(ws, site, look_back_days=11).day == "2025-11-10"


def test_collect_says_that_a_server_does_not_answer(ws, site):
    with pytest.raises(DataError, match="not received in 4 tries"):
        collect_prices(ws, day=FRIDAY, url="http://127.0.0.1:9", quiet=True)


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
    assert visible(ws.raw) == sorted([name_of(THURSDAY, "raw"), *map(name_of, days)])
    assert (ws.raw / name_of(THURSDAY)).read_bytes() == zip_of(THURSDAY)
    assert found.notes == (f"{by_hand.name}, {name_of(THURSDAY)}: adjusted up to 2025-11-21 replaces it; without it, "
                           "reading is faster",)
    assert len(json.loads((ws.raw / MANIFEST).read_text())) == 3


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


def test_collect_shows_progress_in_plain_lines(ws, site, capsys, monkeypatch):
    monkeypatch.setattr("vnq_colab.data.downloads.PLAIN_SECONDS", 0)
    site.publish(FRIDAY)
    collect_prices(ws, day=FRIDAY, url=site.url, kinds=("adjusted",))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{name_of(FRIDAY)}: 0 of 0 MB", f"{name_of(FRIDAY)}: 0.0 MB, verified"]


def test_collect_shows_a_bar_on_a_terminal(ws, site, capsys, monkeypatch):
    monkeypatch.setattr("vnq_colab.data.downloads.is_live", lambda: True)
    site.publish(FRIDAY)
    collect_prices(ws, day=FRIDAY, url=site.url, kinds=("adjusted",))
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("options, said", [
    ({"source": "cafeff"}, "Did you mean 'cafef'"), ({"kinds": ("adjust",)}, "Did you mean 'adjusted'"),
    ({"url": "cafef.vn"}, "must begin with https://")])
def test_collect_refuses_what_it_does_not_know(ws, options, said):
    with pytest.raises(ConfigError, match=said):
        collect_prices(ws, **options)


def test_collect_refuses_a_day_that_is_none(ws):
    with pytest.raises(DataError, match="'21/11/2025' is not a date"):
        collect_prices(ws, day="21/11/2025")


# --- vnstock: a stub that takes the documented calls; the live service was not tried


@pytest.fixture
def vnstock(monkeypatch):
    calls = []

    class Quote:
        def __init__(self, symbol, source):
            self.symbol, self.source = symbol, source

        def history(self, start, end, interval):
            calls.append((self.symbol, self.source, end, interval))
            if self.symbol == "BAD":
                raise SystemExit("Rate limit exceeded.")
            rows = 0 if self.symbol == "NIL" else 2
            return pd.DataFrame({"time": pd.to_datetime(["2025-11-20", "2025-11-21"]), "open": 24.5, "high": 25.0,
                                 "low": 24.1, "close": [24.6, 24.9], "volume": 100})[:rows]

    monkeypatch.setitem(sys.modules, "vnstock", types.SimpleNamespace(Quote=Quote))
    monkeypatch.setattr(collect, "VNSTOCK_SECONDS", 0)
    return calls


def test_vnstock_writes_one_file_per_symbol_as_it_comes(ws, vnstock):
    found = collect_prices(ws, day=FRIDAY, source="vnstock", symbols=("FPT", "BAD", "NIL", "VCB"), quiet=True)
    assert visible(ws.raw / "vnstock") == ["FPT.csv", "VCB.csv"] and len(found.files) == 2
    assert (ws.raw / "vnstock" / "FPT.csv").read_text().splitlines()[:2] == [
        "time,open,high,low,close,volume", "2025-11-20,24.5,25.0,24.1,24.6,100"]
    assert found.notes == ("failed: BAD, NIL (first BAD: Rate limit exceeded.)",)
    assert vnstock[0] == ("FPT", "VCI", FRIDAY, "1D")


def test_vnstock_asks_once_a_day(ws, vnstock):
    for day in (FRIDAY, FRIDAY, "2025-11-24"):
        found = collect_prices(ws, day=day, source="vnstock", symbols=("FPT",), quiet=True)
        assert found.day == day
    assert [call[2] for call in vnstock] == [FRIDAY, "2025-11-24"]


def test_vnstock_leaves_a_file_of_the_person_alone(ws, vnstock):
    (ws.raw / "vnstock").mkdir(parents=True)
    (ws.raw / "vnstock" / "FPT.csv").write_text("mine")
    found = collect_prices(ws, day=FRIDAY, source="vnstock", symbols=("FPT", "VCB"), quiet=True)
    assert (ws.raw / "vnstock" / "FPT.csv").read_text() == "mine" and "was not fetched by us" in found.notes[0]


def test_vnstock_that_gives_nothing_is_an_error(ws, vnstock):
    with pytest.raises(DataError, match="gave none of 1 symbols .BAD: Rate limit exceeded"):
        collect_prices(ws, day=FRIDAY, source="vnstock", symbols=("BAD",), quiet=True)


def test_vnstock_missing_is_an_error_with_the_install_line(ws, monkeypatch):
    monkeypatch.setitem(sys.modules, "vnstock", None)
    with pytest.raises(DataError, match="pip install vnstock"):
        collect_prices(ws, source="vnstock")


# --- Google Drive: gdown's address is fixed, so its functions are replaced by ones that do what Google does

DRIVE_ID = "1AbCdEfGhIjKlMnOpQrStUvWx_-0"
CSV = b"<Ticker>,<DTYYYYMMDD>,<Open>\nFPT,20251121,100\n"


@pytest.fixture
def drive(monkeypatch):
    """What Drive answers: `files` {id: (name, content or the error that gdown raises)}, `asked` the ids."""
    import gdown

    inspect.signature(gdown.download).bind(id="", output="", quiet=True)
    inspect.signature(gdown.download_folder).bind(id="", output="", quiet=True, skip_download=True)
    drive = types.SimpleNamespace(files={DRIVE_ID: ("prices.csv", CSV)}, asked=[], listing=None)

    def download(*, id, output, quiet):
        name, content = drive.files[id]
        drive.asked.append(id)
        if isinstance(content, Exception):
            raise content
        Path(output, name).write_bytes(content)
        return str(Path(output, name))

    def download_folder(*, id, output, quiet, skip_download):
        assert skip_download
        item = types.SimpleNamespace
        return drive.listing and [item(id=file, path=path, local_path=str(Path(output, path)))
                                  for file, path in drive.listing]

    monkeypatch.setattr(gdown, "download", download)
    monkeypatch.setattr(gdown, "download_folder", download_folder)
    return drive


@pytest.mark.parametrize("link", [
    f"https://drive.google.com/file/d/{DRIVE_ID}/view?usp=sharing", f"https://drive.google.com/open?id={DRIVE_ID}",
    f"https://drive.google.com/uc?export=download&id={DRIVE_ID}", f" https://drive.google.com/uc?id={DRIVE_ID}\n",
    f"https://drive.google.com/file/u/1/d/{DRIVE_ID}/edit", f"https://docs.google.com/uc?id={DRIVE_ID}&confirm=t",
    f"https://drive.usercontent.google.com/download?id={DRIVE_ID}&export=download"])
def test_drive_takes_every_form_of_a_file_link_and_fetches_once(tmp_path, drive, link):
    file = download_drive(link, tmp_path / "new", quiet=True)
    assert file == tmp_path / "new" / "prices.csv" and file.read_bytes() == CSV
    entry = json.loads((tmp_path / "new" / MANIFEST).read_text())[f"https://drive.google.com/uc?id={DRIVE_ID}"]
    assert entry["file"] == "prices.csv" and entry["bytes"] == len(CSV) and len(entry["sha256"]) == 64
    assert download_drive(f"https://drive.google.com/open?id={DRIVE_ID}", tmp_path / "new", quiet=True) == file
    assert drive.asked == [DRIVE_ID]


def test_drive_fetches_again_what_was_changed_or_removed(tmp_path, drive):
    link = f"https://drive.google.com/open?id={DRIVE_ID}"
    file = download_drive(link, tmp_path, quiet=True)
    file.write_bytes(b"changed")
    download_drive(link, tmp_path, quiet=True)
    file.unlink()
    assert download_drive(link, tmp_path, quiet=True).read_bytes() == CSV and len(drive.asked) == 3


@pytest.mark.parametrize("folder", [f"drive/folders/{DRIVE_ID}?usp=sharing", f"drive/u/0/folders/{DRIVE_ID}"])
def test_drive_brings_the_new_files_of_a_folder(tmp_path, drive, folder):
    drive.files = {"a" * 20: ("FPT.csv", CSV), "b" * 20: ("VCB.csv", CSV), "c" * 20: ("VNM.csv", CSV)}
    drive.listing = [("a" * 20, "FPT.csv"), ("b" * 20, "more/VCB.csv")]
    assert download_drive(f"https://drive.google.com/{folder}", tmp_path, quiet=True) == tmp_path
    drive.listing.append(("c" * 20, "VNM.csv"))
    download_drive(f"https://drive.google.com/{folder}", tmp_path, quiet=True)
    assert visible(tmp_path) == ["FPT.csv", "VNM.csv", "more"] and (tmp_path / "more" / "VCB.csv").read_bytes() == CSV
    assert drive.asked == ["a" * 20, "b" * 20, "c" * 20]


QUOTA = ("Failed to retrieve file url:\n\n\tToo many users have viewed or\n\tdownloaded this file recently. Please try "
         "accessing the file again later.")
NOT_SHARED = ("Failed to retrieve file url:\n\n\tCannot retrieve the public link of the\n\tfile. You may need to "
              "change the permission to 'Anyone with the link'")


@pytest.mark.parametrize("answer, said", [
    (QUOTA, "too many people fetched this file. Wait up to 24 hours, or make a copy"),
    (NOT_SHARED, "not shared with everyone who has the link .*General access, Anyone with the link"),
    ("Max retries exceeded", r"could not be fetched \(Max retries exceeded\)"),
    (PAGE, "could not be fetched .a web page, not data"),
    (b"<html><title>Google Drive - Quota exceeded</title>", "too many people fetched"),
    (b'\n<!doctype html><a href="https://accounts.google.com/signin">', "not shared with everyone")])
def test_drive_says_why_there_is_no_file_and_what_to_do(tmp_path, drive, answer, said):
    from gdown.exceptions import FileURLRetrievalError

    drive.files[DRIVE_ID] = "prices.csv", FileURLRetrievalError(answer) if isinstance(answer, str) else answer
    with pytest.raises(DataError, match=said) as error:
        download_drive(f"https://drive.google.com/open?id={DRIVE_ID}", tmp_path, quiet=True)
    assert "\n" not in str(error.value) and visible(tmp_path) == []


def test_drive_says_that_a_folder_is_not_shared(tmp_path, drive):
    with pytest.raises(DataError, match="not shared with everyone"):
        download_drive(f"https://drive.google.com/drive/folders/{DRIVE_ID}", tmp_path, quiet=True)


def test_drive_never_replaces_a_file_of_the_person(tmp_path, drive):
    link = f"https://drive.google.com/open?id={DRIVE_ID}"
    (tmp_path / "prices.csv").write_bytes(b"mine")
    with pytest.raises(DataError, match="a file of this name is there already"):
        download_drive(link, tmp_path, quiet=True)
    assert (tmp_path / "prices.csv").read_bytes() == b"mine"
    (tmp_path / "prices.csv").write_bytes(CSV)
    assert download_drive(link, tmp_path, quiet=True).read_bytes() == CSV


def test_drive_never_writes_outside_the_folder(tmp_path, drive):
    drive.listing = [(DRIVE_ID, "../outside.csv")]
    with pytest.raises(DataError, match="leads out of"):
        download_drive(f"https://drive.google.com/drive/folders/{DRIVE_ID}", tmp_path / "inside", quiet=True)
    assert not (tmp_path / "outside.csv").exists()


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
