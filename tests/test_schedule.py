"""The schedule: each system's text read by that system's own parser, and installed in pretended ones."""

import datetime as dt
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest
import yaml

from vnq_colab.__main__ import _parser, main
from vnq_colab.delivery.week import BEGIN, DAYS, FILES, ZONE, install, make_schedule, parse_time
from vnq_colab.errors import ConfigError, StorageError
from vnq_colab.layout import Workspace

ODD = "Thư mục 50% \"của\" $tôi's `x`"
WORDS = {"weekly": ["-m", "vnq_colab", "weekly", "--until", "Mon 08:30", "--root"],
         "daily": ["-m", "vnq_colab", "predict", "--collect", "--root"]}
posix = pytest.mark.skipif(os.name == "nt", reason="a program of Linux")


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not here")


def program(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)
    return folder / name


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """(workspace, python) at paths with every letter that a system could take for its own; python shows its words."""
    python = program(tmp_path / ODD, "python", f"exec {shlex.quote(sys.executable)} -c "
                     "'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"")
    monkeypatch.setattr("sys.executable", str(python))
    return Workspace(tmp_path / ODD / "ws"), python


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """A folder before $PATH for pretended programs, which write what they were asked into `calls`."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path / "bin"


@pytest.fixture
def in_zone(monkeypatch):
    def move(zone):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
    yield move
    monkeypatch.undo()
    if hasattr(time, "tzset"):
        time.tzset()


# --- times


def test_times_are_read_as_people_write_them():
    assert parse_time("Sun 02:00") == (6, dt.time(2)) == parse_time(" sunday  2:00 ")
    assert parse_time("17:05") == (None, dt.time(17, 5))


@pytest.mark.parametrize("words", [["--weekly", "Sun 25:00"], ["--weekly", "Son 02:00"], ["--weekly", "02:00"],
                                   ["--daily", "Sun 17:00"], ["--daily", "5 pm"], ["--daily", ""],
                                   ["--system", "systemctl"], ["--install", "--system", "docker"]])
def test_what_is_no_schedule_is_one_sentence_and_exit_code_2(tmp_path, capsys, words):
    try:
        code = main(["schedule", "--root", str(tmp_path / "ws"), *words])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr()
    assert code == 2 and said.out == "" and len(said.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize("name", ["line\nbreak", "back\\slash"])
def test_folder_that_no_schedule_can_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="no schedule can name"):
        make_schedule(Workspace(tmp_path / name), "Sun 02:00", "17:00", "cron")


@pytest.mark.parametrize("system", FILES)
def test_command_prints_by_default_and_gives_files_as_json(tmp_path, capsys, system):
    words = ["schedule", "--root", str(tmp_path / "ws"), "--system", system]
    assert main(words) == 0 and main([*words, "--install", "--print", "--json"]) == 0
    printed, value = capsys.readouterr().out.rsplit("\n{", 1)
    files = json.loads("{" + value)["files"]
    assert files and all(text in printed + "\n" for text in files.values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_commands_of_the_schedule_are_such_as_the_command_line_takes(words):
    assert _parser().parse_args([*words[2:], "x"]).root == "x"


# --- each system's own parser


@posix
@needs("systemd-analyze")
def test_units_pass_systemd_and_start_when_they_should(odd, tmp_path):
    ws, python = odd
    files = make_schedule(ws, "Sun 02:00", "17:00", "systemd")
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "--user", "verify", *(tmp_path / name for name in files)],
                          capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    for name, words in WORDS.items():
        line = re.search("^ExecStart=:/usr/bin/env (.*)$", files[f"vnq-{name}.service"], re.MULTILINE)[1]
        assert [word.replace("%%", "%") for word in shlex.split(line)] == [str(python), *words, str(ws.root)]
        timer = files[f"vnq-{name}.timer"]
        when = re.search("^OnCalendar=(.*)$", timer, re.MULTILINE)[1]
        shown = subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, text=True, check=True).stdout
        expected = {"weekly": f"Sun *-*-* 02:00:00 {ZONE}", "daily": f"Mon..Fri *-*-* 17:00:00 {ZONE}"}[name]
        assert f"Normalized form: {expected}" in shown and "Persistent=true" in timer


@posix
@needs("crontab")
@pytest.mark.parametrize("zone, weekly, daily", [
    ("UTC", "0 19 * * 6", "0 10 * * 1,2,3,4,5"), (ZONE, "0 2 * * 0", "0 17 * * 1,2,3,4,5"),
    ("Etc/GMT+12", "0 7 * * 6", "0 22 * * 0,1,2,3,4"), ("Asia/Kathmandu", "45 0 * * 0", "45 15 * * 1,2,3,4,5")])
def test_lines_pass_cron_in_the_clock_of_the_machine_and_reach_the_command(odd, tmp_path, in_zone, zone, weekly, daily):
    ws, _ = odd
    in_zone(zone)
    text = make_schedule(ws, "Sun 02:00", "17:00", "cron")["crontab"]
    paper = make_schedule(ws, "Sun 02:00", "17:00", "cron", paper=True)["crontab"]
    assert paper == text.replace("--collect", "--collect --paper")
    (tmp_path / "table").write_text(text, encoding="utf-8")
    help_text = subprocess.run(["crontab", "-h"], capture_output=True, text=True).stderr
    check = "-T" if "-T" in help_text else "-n"  # cronie's and Debian's
    done = subprocess.run(["crontab", check, tmp_path / "table"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [" ".join(line.split()[:5]) for line in lines] == [weekly, daily]
    for line, words in zip(lines, WORDS.values(), strict=True):
        command = line.split(maxsplit=5)[5].replace(r"\%", "%")  # as cron does before it asks the shell
        assert not re.search(r"(?<!\\)%", line.split(maxsplit=5)[5])
        shown = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True).stdout
        assert json.loads(shown) == [*words, str(ws.root)]


@posix
def test_cron_that_knows_time_zones_keeps_the_time_of_vietnam(tmp_path, pretended, in_zone):
    program(pretended, "crontab", "echo cronie 1.7")
    in_zone("America/New_York")
    text = make_schedule(Workspace(tmp_path / "ws"), "Sun 02:00", "17:00", "cron")["crontab"]
    assert f"\nCRON_TZ={ZONE}\n0 2 * * 0 " in text and "\n0 17 * * 1,2,3,4,5 " in text


def test_tasks_of_windows_are_in_the_order_of_its_schema(odd):
    ws, python = odd
    files = make_schedule(ws, "Sun 02:00", "17:00", "windows")
    space = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
    for name, days in (("weekly", [6]), ("daily", [0, 1, 2, 3, 4])):
        task = ElementTree.fromstring(files[f"vnq-{name}.xml"])
        assert [part.tag for part in task] == [space + part for part in ("Triggers", "Settings", "Actions")]
        assert task.find(f"{space}Settings/{space}StartWhenAvailable").text == "true"
        starts = []
        for trigger in task.find(f"{space}Triggers"):
            assert [part.tag for part in trigger] == [f"{space}StartBoundary", f"{space}ScheduleByDay"]
            assert trigger.find(f".//{space}DaysInterval").text == "7"
            starts.append(dt.datetime.fromisoformat(trigger[0].text))
        assert sorted(start.weekday() for start in starts) == days
        now = dt.datetime.now(dt.UTC)
        assert all(start.utcoffset() == dt.timedelta(hours=7) and now < start < now + dt.timedelta(7.01)
                   for start in starts)
        command, arguments = task.find(f"{space}Actions/{space}Exec")
        assert command.text == str(python)
        assert arguments.text == subprocess.list2cmdline([*WORDS[name], str(ws.root)])


@posix
@pytest.mark.parametrize("now", ["2026-11-28T18:59:59", "2026-11-28T19:00:00", "2026-11-30T10:00:01"])
def test_compose_file_waits_until_the_next_start_and_names_the_folder(odd, tmp_path, pretended, now):
    ws, _ = odd
    services = yaml.safe_load(make_schedule(ws, "Sun 02:00", "17:00", "docker")["compose.yaml"])["services"]
    moment = dt.datetime.fromisoformat(f"{now}+00:00")
    program(pretended, "pip", "")
    program(pretended, "date", f"case $1 in +%u) echo {moment.isoweekday()};; *) echo {moment.timestamp():.0f};; esac")
    program(pretended, "sleep", f"echo $1; mkdir {tmp_path}/$1 2>/dev/null")  # true once, then false, which ends it
    program(pretended, "python", 'for word in "$@"; do echo "$word"; done')
    for name, at in (("weekly", dt.time(2)), ("daily", dt.time(17))):
        service = services[f"vnq-{name}"]
        assert service["volumes"][0]["source"].replace("$$", "$") == str(ws.root)
        assert "VNQ_NOTIFY" in service["environment"], "its value stands in no file"
        words = [word.replace("$$", "$") for word in service["command"]]
        wait, *command, again = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
        is_at_rest = name == "daily" and moment.isoweekday() > 5
        assert wait == again and command == ([] if is_at_rest else [*WORDS[name], "/workspace"])
        wait = int(wait)
        start = (moment + dt.timedelta(seconds=wait)).astimezone(dt.timezone(dt.timedelta(hours=7)))
        assert start.time() == at and 0 < wait <= 86_400 * (7 if name == "weekly" else 1)
        assert name == "daily" or DAYS[start.weekday()] == "Sun"


# --- installing


@posix
def test_units_are_installed_once_and_not_where_systemd_does_not_answer(tmp_path, pretended, capsys):
    words = ["schedule", "--root", str(tmp_path / "ws"), "--system", "systemd", "--install"]
    program(pretended, "systemctl", "echo no bus >&2; exit 1")
    assert main(words) == 2 and "no bus" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
    program(pretended, "systemctl", f"echo $@ >> {tmp_path / 'calls'}")
    assert main(words) == 0 and main([*words, "--daily", "18:00"]) == 0
    folder = tmp_path / "home" / ".config" / "systemd" / "user"
    assert sorted(path.name for path in folder.iterdir()) == [
        "vnq-daily.service", "vnq-daily.timer", "vnq-weekly.service", "vnq-weekly.timer"]
    assert "18:00" in (folder / "vnq-daily.timer").read_text()
    assert "--user enable --now vnq-weekly.timer vnq-daily.timer" in (tmp_path / "calls").read_text()
    assert "disable --now vnq-weekly.timer vnq-daily.timer" in capsys.readouterr().out


@posix
def test_crontab_keeps_the_lines_of_others_and_holds_ours_once(tmp_path, pretended, capsys):
    table = tmp_path / "table"
    program(pretended, "crontab", f"case $1 in -l) cat {table} 2>/dev/null || {{ echo no crontab for me >&2; exit 1; }}"
            f";; -) cat > {table};; *) exit 1;; esac")
    week = make_schedule(Workspace(tmp_path / "ws"), "Sun 02:00", "17:00", "cron")
    install(week)
    assert table.read_text() == week["crontab"]
    table.write_bytes("# của tôi\n1 1 * * * mine\n".encode() + table.read_bytes() + b"2 2 * * * later \xff")
    assert "crontab -e" in install(week) and "crontab -e" in install(week)
    others = b"2 2 * * * later \xff\n"
    assert table.read_bytes() == "# của tôi\n1 1 * * * mine\n".encode() + others + week["crontab"].encode()
    table.write_text(f"1 1 * * * mine\n{BEGIN}\n")
    with pytest.raises(ConfigError, match="without its end"):
        install(week)
    program(pretended, "crontab", "echo you may not >&2; exit 1")
    with pytest.raises(StorageError, match="you may not"):
        install(week)
    assert table.read_text() == f"1 1 * * * mine\n{BEGIN}\n"
