"""This process and its machine: which cores it computes on, and what counts as too little memory."""

import os
import sys
from dataclasses import replace

import psutil
import pytest
import torch

from vnq_colab.training import process
from vnq_colab.training.process import is_out_of_memory, memory_used, performance_cores, set_up_machine, stay_on
from vnq_colab.training.session import Session


def devices(folder, core=None, atom=None):
    for name, cpus in (("cpu_core", core), ("cpu_atom", atom)):
        if cpus is not None:
            (folder / name).mkdir()
            (folder / name / "cpus").write_text(cpus, encoding="ascii")
    return folder


@pytest.mark.parametrize("core, atom, expected", [
    ("0-15\n", "16-27\n", list(range(16))),  # an i7-14700
    ("0,2-3,7\n", "8-9\n", [0, 2, 3, 7]),
    ("0-7\n", None, None),  # all cores alike
    (None, None, None),
    ("\n", "16-27\n", None),
])
def test_performance_cores_are_those_that_linux_names(tmp_path, core, atom, expected):
    assert performance_cores(devices(tmp_path, core, atom)) == expected


@pytest.fixture
def affinity():
    """The logical CPUs of this process, put back afterwards."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells which cores are fast")
    before = os.sched_getaffinity(0)
    yield sorted(before)
    stay_on(sorted(before))
    for thread in psutil.Process().threads():
        os.sched_setaffinity(thread.id, before)


def test_process_stays_on_allowed_cores_with_all_its_threads(affinity):
    torch.ones(500, 500) @ torch.ones(500, 500)  # brings torch's own threads to life
    stay_on([affinity[0], 99_999])
    assert {tuple(os.sched_getaffinity(thread.id)) for thread in psutil.Process().threads()} == {(affinity[0],)}
    stay_on([99_999])
    assert os.sched_getaffinity(0) == {affinity[0]}, "never on none"


@pytest.mark.parametrize("profile, moves", [("i7-14700", True), ("cpu", False)])
def test_only_the_hybrid_profile_chooses_its_cores(affinity, tmp_path, config, monkeypatch, profile, moves):
    monkeypatch.setattr(process, "performance_cores", lambda: affinity[:1])
    session = Session(tmp_path, "run", config, "data", {}, [], {})
    set_up_machine(session, replace(config.machine, profile=profile))
    assert (sorted(os.sched_getaffinity(0)) == affinity[:1]) is (moves or len(affinity) == 1)
    assert session.machine["threads"] == 1


@pytest.mark.parametrize("error, expected", [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
    (MemoryError(), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: not enough memory: you tried ..."), True),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    (OSError(12, "Cannot allocate memory"), False),  # of a file system, not of ours
])
def test_errors_of_memory_are_told_from_others(error, expected):
    assert is_out_of_memory(error) is expected


def test_error_that_torch_really_raises_counts_as_memory():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_memory_used_is_that_of_this_process():
    assert float(memory_used().split()[0]) == pytest.approx(psutil.Process().memory_info().rss / 1e9, abs=0.2)
