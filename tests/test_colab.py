import errno
import os
import re
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

from tests.fake_colab import FakeColab, MessageError
from vnq_colab import colab
from vnq_colab.config import PROFILES, RunConfig
from vnq_colab.errors import ConfigError, DataError, StorageError
from vnq_colab.layout import WORKSPACE_NAME

GPUS = {  # name: (compute capability, memory [GiB], profile, dtype, compute units an hour)
    "Tesla T4": ((7, 5), 14.7, "t4", "float32", 1.19),
    "NVIDIA L4": ((8, 9), 22.5, "l4", "bfloat16", 1.71),
    "NVIDIA A100-SXM4-40GB": ((8, 0), 39.4, "a100", "bfloat16", 5.40),
    "NVIDIA A100-SXM4-80GB": ((8, 0), 79.3, "a100", "bfloat16", 7.52),
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": ((12, 0), 95.0, "a100", "bfloat16", 8.71),
    "NVIDIA H100 80GB HBM3": ((9, 0), 79.1, "a100", "bfloat16", None),
    "NVIDIA H200": ((9, 0), 139.8, "a100", "bfloat16", None),
    "Tesla V100-SXM2-16GB": ((7, 0), 15.8, "t4", "float32", None),
}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("VNQ_HOME", raising=False)
    monkeypatch.delenv("VNQ_PROFILE", raising=False)
    monkeypatch.setattr(colab, "HOSTNAME_FILE", tmp_path / "no_hostname")
    monkeypatch.setattr("os.path.ismount", lambda path: True)  # of the fake Drive; one test says otherwise


@pytest.fixture
def fake(monkeypatch, tmp_path):
    return FakeColab(tmp_path).install(monkeypatch)


def give_gpu(monkeypatch, name):
    capability, memory, *_ = GPUS.get(name, ((0, 0), 0.0))
    monkeypatch.setattr(colab, "_find_gpu", lambda: (name, capability, memory))


# --- the folder


def test_open_workspace_elsewhere_is_a_folder_here_and_makes_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vnq_colab.layout._drive_for_desktop", list)
    workspace = colab.open_workspace()
    assert workspace.root == tmp_path / WORKSPACE_NAME
    assert not workspace.root.exists()


def test_open_workspace_takes_its_argument_before_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("VNQ_HOME", str(tmp_path / "home"))
    assert colab.open_workspace().root == tmp_path / "home"
    assert colab.open_workspace(tmp_path / "given").root == tmp_path / "given"


def test_open_workspace_on_colab_mounts_drive_once_and_makes_the_raw_folder(fake):
    workspace = colab.open_workspace(mount_at=fake.mount_at)
    assert workspace.root == fake.drive / WORKSPACE_NAME
    assert workspace.raw.is_dir()
    assert colab.open_workspace(mount_at=fake.mount_at) == workspace
    assert fake.calls == [f"mount {fake.mount_at}"]


def test_open_workspace_never_calls_mount_where_drive_is_mounted_already(fake):
    fake.drive.mkdir(parents=True)
    fake.fails_with = AssertionError("a second mount blocks for two minutes without a browser")
    assert colab.open_workspace(mount_at=fake.mount_at).raw.is_dir()
    assert fake.calls == []


def test_open_workspace_with_a_folder_of_the_machine_leaves_drive_alone(fake, monkeypatch, tmp_path):
    assert colab.open_workspace(tmp_path / "here", mount_at=fake.mount_at).root == tmp_path / "here"
    monkeypatch.setenv("VNQ_HOME", str(tmp_path / "there"))
    assert colab.open_workspace(mount_at=fake.mount_at).root == tmp_path / "there"
    assert fake.calls == []


def test_open_workspace_mounts_drive_for_a_given_folder_that_lies_in_it(fake):
    workspace = colab.open_workspace(fake.drive / "elsewhere", mount_at=fake.mount_at)
    assert workspace.root == fake.drive / "elsewhere"
    assert fake.calls == [f"mount {fake.mount_at}"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotImplementedError("google.colab.drive is unsupported in this environment."), "hosted Colab machine"),
        (ValueError("Mountpoint must not already contain files"), "!mv"),
        (ValueError("mount failed: timeout during initial read of root folder"), "Disconnect and delete runtime"),
        (ValueError("mount failed: invalid oauth code"), "Run this cell again"),
        (ValueError("The domain policy has disabled Drive File Stream: https://support"), "another account"),
        (MessageError("Error: credential propagation was unsuccessful"), "not granted"),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), "force_remount=True"),
        (TimeoutError("nobody answered"), "nobody answered"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_open_workspace_says_one_sentence_for_each_way_in_which_drive_fails(fake, error, words):
    if isinstance(error, OSError) and error.errno == errno.ENOTCONN:
        error = OSError(107, "Transport endpoint is not connected")  # Linux's number, whatever system tests this
    fake.fails_with = error
    with pytest.raises(StorageError, match="Google Drive did not open") as caught:
        colab.open_workspace(mount_at=fake.mount_at)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and "{" not in str(caught.value)
    assert not fake.mount_at.exists(), "a folder under an unmounted mount point keeps Drive from being mounted later"


def test_open_workspace_recognises_a_connection_that_broke_after_the_mount(fake, monkeypatch):
    real = os.stat

    def broken(path, *args, **kwargs):
        if str(path).startswith(str(fake.mount_at)):
            raise OSError(107, "Transport endpoint is not connected")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(colab.os, "stat", broken)
    with pytest.raises(StorageError, match="force_remount=True"):
        colab.open_workspace(mount_at=fake.mount_at)
    assert fake.calls == []


def test_open_workspace_does_not_believe_a_mount_that_shows_no_drive(fake, monkeypatch):
    monkeypatch.setattr(sys.modules["google.colab.drive"], "mount", lambda mountpoint: None)
    with pytest.raises(StorageError, match="MyDrive is not there"):
        colab.open_workspace(mount_at=fake.mount_at)
    assert not fake.mount_at.exists()


def test_open_workspace_in_a_terminal_of_colab_uses_drive_but_cannot_ask_for_it(monkeypatch, tmp_path):
    fake = FakeColab(tmp_path).install(monkeypatch, in_notebook=False)
    assert colab.is_colab()
    with pytest.raises(StorageError, match="notebook cell"):
        colab.open_workspace(mount_at=fake.mount_at)
    fake.drive.mkdir(parents=True)
    assert colab.open_workspace(mount_at=fake.mount_at).raw.is_dir()
    assert fake.calls == []


def test_open_workspace_warns_of_an_ordinary_folder_that_looks_like_drive(fake, monkeypatch, capsys):
    fake.drive.mkdir(parents=True)
    monkeypatch.setattr("os.path.ismount", lambda path: False)
    colab.open_workspace(mount_at=fake.mount_at)
    assert "is lost with this machine" in capsys.readouterr().out


def test_is_colab_knows_the_shell_and_the_host_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "as on Kaggle")
    assert not colab.is_colab()
    FakeColab(tmp_path).install(monkeypatch, hosted=False)
    assert colab.is_colab()


# --- secrets


def test_open_workspace_reads_addresses_from_colabs_secrets_once_and_says_when_it_may_not(fake, monkeypatch, capsys):
    monkeypatch.setenv("VNQ_NOTIFY", "")
    monkeypatch.delenv("VNQ_NOTIFY")
    colab.open_workspace(mount_at=fake.mount_at)
    assert "VNQ_NOTIFY" not in os.environ and capsys.readouterr() == ("", "")
    fake.secrets["VNQ_NOTIFY"] = PermissionError("json://user:SECRET@host")
    colab.open_workspace(mount_at=fake.mount_at)
    said = "".join(capsys.readouterr())
    assert "Give this notebook access" in said and "SECRET" not in said
    fake.secrets["VNQ_NOTIFY"] = "json://user:SECRET@host"
    colab.open_workspace(mount_at=fake.mount_at)
    fake.secrets["VNQ_NOTIFY"] = "another"
    colab.open_workspace(mount_at=fake.mount_at)
    assert os.environ["VNQ_NOTIFY"] == "json://user:SECRET@host"
    for name in ("VNQ_SUGGEST_URL", "VNQ_SUGGEST_KEY", "VNQ_SUGGEST_MODEL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
        fake.secrets[name] = f"of {name}"
    colab.open_workspace(mount_at=fake.mount_at)
    assert os.environ["VNQ_SUGGEST_KEY"] == "of VNQ_SUGGEST_KEY" and os.environ["VNQ_SUGGEST_URL"].startswith("of")


# --- giving the machine back


def test_release_gpu_pushes_all_writes_before_it_gives_the_machine_back(fake):
    colab.release_gpu()
    assert fake.calls == ["flush_and_unmount", "unassign"]


def test_release_gpu_keeps_the_machine_when_drive_does_not_take_the_writes(fake):
    fake.flush_fails_with = ValueError("flush_and_unmount failed")
    with pytest.raises(StorageError, match="the machine was kept"):
        colab.release_gpu()
    assert fake.calls == ["flush_and_unmount"]


def test_release_gpu_can_give_up_what_has_not_arrived(fake):
    colab.release_gpu(flush=False)
    assert fake.calls == ["unassign"]


@pytest.mark.parametrize("status, why, drive, gives_back", [
    ("finished", "3 of 3 symbols done", "", True), ("paused", "time is up", "", True),
    ("paused", "stopped by the person", "", False), ("paused", "the disk is full", "", False),
    ("finished", "3 of 3 symbols done", "2 files did not reach Drive", False),
])
def test_release_gpu_as_on_finish_keeps_the_machine_unless_all_is_safe(fake, status, why, drive, gives_back):
    colab.release_gpu(types.SimpleNamespace(status=status, why=why, drive=drive))
    assert fake.calls == (["flush_and_unmount", "unassign"] if gives_back else [])


def test_release_gpu_does_nothing_elsewhere_and_says_so(capsys):
    colab.release_gpu()
    assert "Nothing to give back" in capsys.readouterr().out


# --- the machine


@pytest.mark.parametrize("name", GPUS)
def test_describe_machine_finds_the_profile_and_the_dtype_of_the_gpu_that_was_given(fake, monkeypatch, name):
    _, memory, profile, dtype, units = GPUS[name]
    give_gpu(monkeypatch, name)
    machine = colab.describe_machine()
    assert (machine.gpu, machine.gpu_memory_gb) == (name, memory)
    assert (machine.where, machine.profile, machine.device, machine.dtype) == ("Colab", profile, "cuda", dtype)
    assert machine.units_per_hour == units
    assert "compute capability 8.0" in machine.dtype_reason
    assert name in repr(machine) and "hours left" in repr(machine)
    assert RunConfig.for_machine(machine).machine.dtype == dtype


def test_describe_machine_without_a_gpu_takes_the_cpu_profile_and_knows_no_limit(monkeypatch):
    give_gpu(monkeypatch, None)
    monkeypatch.setattr("vnq_colab.training.process.processor_name", lambda: "AMD EPYC 7B12")
    machine = colab.describe_machine()
    assert (machine.where, machine.profile, machine.device, machine.dtype) == ("local", "cpu", "cpu", "float32")
    assert machine.gpu is machine.gpu_memory_gb is machine.hours_left is machine.units_per_hour is None
    assert machine.cores >= 1 and machine.memory_gb > 0.5


def test_describe_machine_recognises_the_desktop_by_the_name_of_its_processor(monkeypatch, tmp_path):
    give_gpu(monkeypatch, None)
    lines = "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7-14700KF\nprocessor\t: 1\n"
    (tmp_path / "cpuinfo").write_text(lines, encoding="utf-8")
    monkeypatch.setattr("vnq_colab.training.process.CPU_INFO", tmp_path / "cpuinfo")
    assert colab.describe_machine().profile == "i7-14700"


@pytest.mark.parametrize("profile", PROFILES)
def test_describe_machine_takes_the_profile_that_was_asked_for(monkeypatch, profile):
    give_gpu(monkeypatch, "NVIDIA H200")
    machine = colab.describe_machine(profile)
    asks = PROFILES[profile]["machine"]
    assert machine.profile == profile
    assert (machine.device, machine.dtype) == (asks.get("device", "cpu"), asks.get("dtype", "float32"))
    monkeypatch.setenv("VNQ_PROFILE", profile)
    assert colab.describe_machine() == machine


def test_describe_machine_refuses_a_profile_that_nobody_knows(monkeypatch):
    monkeypatch.setenv("VNQ_PROFILE", "i7-1470")
    with pytest.raises(ConfigError, match="Did you mean 'i7-14700'"):
        colab.describe_machine()


def test_describe_machine_refuses_a_gpu_profile_where_there_is_no_gpu(monkeypatch):
    give_gpu(monkeypatch, None)
    with pytest.raises(ConfigError, match="needs a GPU"):
        colab.describe_machine("a100")


@pytest.mark.parametrize(
    ("age", "plan_hours", "left"),
    [(0.5, None, 11.25), (13.0, None, 10.75), (13.0, 24, 10.75), (1.0, 24, 22.75), (12.5, 12, 0.0), (None, None, 11.75),
     (25.0, None, 0.0)],
)
def test_describe_machine_counts_the_hours_from_the_birth_of_the_machine(fake, monkeypatch, age, plan_hours, left):
    give_gpu(monkeypatch, "Tesla T4")
    monkeypatch.setattr(colab, "machine_age_hours", lambda: age)
    assert colab.describe_machine(plan_hours=plan_hours).hours_left == pytest.approx(left)


def test_describe_machine_counts_only_the_cores_that_this_process_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(colab.psutil, "cpu_count", lambda logical=True: 64)
    monkeypatch.setattr(colab.psutil.Process, "cpu_affinity", lambda self: list(range(8)), raising=False)
    monkeypatch.setattr(colab, "CPU_QUOTA", Path(tmp_path / "none"))
    assert colab._cores() == 8
    (tmp_path / "cpu.max").write_text("250000 100000\n", encoding="utf-8")
    monkeypatch.setattr(colab, "CPU_QUOTA", tmp_path / "cpu.max")
    assert colab._cores() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n", encoding="utf-8")
    assert colab._cores() == 8


# --- what a notebook shows, gets and gives


def test_table_is_colabs_own_on_colab_and_html_elsewhere(fake, monkeypatch):
    rows = pd.DataFrame({"gate": ["days"], "at": [pd.Timestamp("2026-01-30")], "measured": [0.123456]})
    assert colab.table(rows).equals(rows.assign(measured=0.1235))
    monkeypatch.setattr(colab, "_in_notebook", lambda: False)
    assert "<td" in colab.table(rows)._repr_html_()


def test_uploaded_prices_lie_in_raw_and_cannot_leave_it(fake, tmp_path):
    fake.uploads = {"prices.csv": b"symbol,date", "../../outside.csv": b"x"}
    workspace = colab.open_workspace(tmp_path / "tour")
    assert colab.upload_prices(workspace).startswith("2 price files are in")
    assert {path.name for path in workspace.raw.iterdir()} == {"prices.csv", "outside.csv"}


def test_tour_without_the_files_that_were_asked_for_stops(fake, tmp_path):
    fake.uploads = {}
    with pytest.raises(DataError, match="no price files are here. Put yours there"):
        colab.upload_prices(colab.open_workspace(tmp_path))


def test_download_zips_a_folder_and_the_browser_gets_it(fake, monkeypatch, tmp_path):
    (tmp_path / "reports" / "r1").mkdir(parents=True)
    (tmp_path / "reports" / "r1" / "report.html").write_text("x", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "reports_r1.zip" in colab.download(tmp_path / "reports" / "r1")
    assert fake.calls == ["download reports_r1.zip"] and (tmp_path / "reports_r1.zip").exists()


def test_machine_says_what_it_cost(monkeypatch):
    give_gpu(monkeypatch, "Tesla T4")
    monkeypatch.setattr(colab, "is_colab", lambda: True)
    machine = colab.describe_machine()
    assert re.fullmatch(r"\d s on this machine, about [\d.e-]+ units", machine.spent())
