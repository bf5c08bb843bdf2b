"""A small part of the soak (`python -m tests.faults.soak --help`): kills and faults with fixed seeds, on real runs.

One fault of each kind is in the default run; the others are marked slow.
"""

import errno
import functools
import io
import os
import random

import pytest
import torch

if not hasattr(os, "fork"):
    pytest.skip("this system cannot fork a process, and each attempt here is one", allow_module_level=True)

from tests.faults import others
from tests.faults.commands import copy, kill_command, kill_commands, kill_week
from tests.faults.damage import damaged, resume_after_damage
from tests.faults.drive import age_drive, arrive_later, run_on_bad_drive, start_without_drive, write_hours
from tests.faults.hostile import ALL, LOOKING, finished, memory, special_files, strays_everywhere
from tests.faults.kills import EVERY, KILL, Tally, kill_at_point, kill_one_run
from tests.faults.mutants import mutate
from tests.faults.owners import comes_back, race, taken_over
from tests.faults.trials import Parent, Reference, Trial, folder_for
from vnq_colab import files
from vnq_colab.errors import StorageError
from vnq_colab.files import write_atomic
from vnq_colab.layout import Workspace
from vnq_colab.training.checkpoint import CheckpointStore, write_payload

PANEL_CALLS, ALL_CALLS = 200, 1500  # writing calls of the tiny run before its session, the stored panel; and in all
SLOW = pytest.mark.slow
ON_DRIVE = pytest.mark.parametrize("on_drive", [pytest.param(False, marks=SLOW), True], ids=["local", "drive"])


def slow_but(first, others):
    """Parameters of which only the first is in the default run."""
    return [first, *(pytest.param(*other, marks=SLOW) if isinstance(other, tuple) else pytest.param(other, marks=SLOW)
                     for other in others)]


@pytest.fixture(scope="module")
def parent():
    with Parent() as made:
        yield made


@pytest.fixture(scope="module")
def second_parent():
    with Parent() as made:
        yield made


@pytest.fixture(scope="module")
def reference(parent):
    return Reference.of(parent, "tiny", every=EVERY)


@pytest.fixture(scope="module")
def reference_of_twelve(parent):
    return Reference.of(parent, "twelve")


class Strict(Tally):
    """A tally that does not go on after a failure."""

    def fail(self, where: str, found: "list[str] | str") -> None:
        raise AssertionError(f"{where}: {found}")


@pytest.fixture
def tally():
    return Strict(tell=lambda text: None)


# ------------------------------------------------------------------------------------------------------------- kills
@pytest.mark.slow
@ON_DRIVE
def test_run_killed_at_random_instants_ends_with_equal_bits(tmp_path, parent, reference_of_twelve, tally, on_drive):
    hit = kill_one_run(parent, reference_of_twelve, tmp_path, tally, seed=4, kills=2, on_drive=on_drive, exported=True)
    assert hit >= 1 and tally.counts["finished jobs trained again"] == 0


@pytest.mark.parametrize("job, step", slow_but(("stockformer_fold1_pack01", 12), [
    ("trees_fold1", 4), ("global_fold1", 30), ("trees_final", 4), ("global_final", 20),
    ("stockformer_final_pack00", 9)]))
def test_run_killed_in_any_family_or_the_final_fit_gives_the_same_bundle(tmp_path, parent, reference, tally, job, step):
    """In the middle of the job: what was finished is not trained again, the rest comes out as if nothing had been."""
    trial, pace = Trial(tmp_path, "tiny"), 0.05 if step < 6 else 0  # the writer's thread waits for a free core
    assert parent.run(trial.job("train", every=3, at=[job, step, KILL], step_seconds=pace))["exit"] == -9
    known = trial.finished_jobs()
    assert known == set(list(reference.hashes)[:list(reference.hashes).index(job)])
    ended = parent.run(trial.job("resume"))
    again = {step[0] for step, _ in trial.steps()}
    assert job in again and not again & known and f"{job}: goes on from its checkpoint" in ended["said"]
    assert reference.differences(trial, ended["result"]) == [] and reference.other_bytes(trial) == []
    assert parent.run(trial.job("export"))["exit"] == 0 and trial.models() == reference.models


@pytest.mark.parametrize("where", slow_but("drive, machine lost", ["local", "drive"]))
def test_run_killed_at_a_writing_call_ends_with_equal_bits(parent, reference, tally, where):
    chance = random.Random(f"9 {where}")
    for point in chance.sample(range(PANEL_CALLS, ALL_CALLS), 2):
        assert kill_at_point(parent, reference, tally, point, on_drive=where != "local", lose_machine="lost" in where)
    assert tally.counts["points survived"] == 2 and "torn files in place" not in tally.counts


@pytest.mark.slow
def test_stored_panel_torn_by_a_kill_does_not_stop_the_next_start(parent, reference, tally):
    """The kill comes while Drive's panel.parquet is being overwritten; whoever calls train has the panel in hand."""
    for point in (94, 95):
        kill_at_point(parent, reference, tally, point, on_drive=True)
    assert tally.counts["points"] == 2


@pytest.mark.slow
def test_finished_jobs_of_a_resumed_run_are_equal_byte_for_byte(tmp_path, parent, reference):
    trial = others.killed(parent, tmp_path)
    assert parent.run(trial.job("resume", every=EVERY))["result"]["status"] == "finished"
    assert reference.other_bytes(trial) == []


# ---------------------------------------------------------------------------------------------------- damaged files
@pytest.mark.parametrize("count", slow_but(150, [300]))
def test_files_changed_by_a_hostile_hand_give_a_sentence_or_the_same_answers(parent, tally, count):
    kinds = mutate(parent, tally, count, seed=count, slow=0.1 if count > 200 else 0)
    assert tally.counts["refused"] > 0.2 * count and len(kinds) > 45  # else it tests little


@ON_DRIVE
@pytest.mark.parametrize("seed", slow_but(1, [2, 3]))
def test_run_with_damaged_files_goes_on_to_equal_bits(parent, reference, tally, on_drive, seed):
    resume_after_damage(parent, reference, tally, seed, on_drive=on_drive)
    assert tally.counts["equal bits after damage"] == 1


# ------------------------------------------------------------------------------------------------------------- Drive
@pytest.mark.parametrize("fault", slow_but("disconnected for good", [
    "errno 5, 107, 28 and 95, one call in 50", "stores half and says all", "files cut when they are closed",
    "disconnected and back", "everything at once"]))
def test_drive_that_fails_never_stops_training_and_holds_nothing_torn(parent, reference, tally, fault):
    run_on_bad_drive(parent, reference, tally, fault, seed=3, patience=4 if fault == "everything at once" else 0.5)
    assert tally.counts["appends, renames, deletes on Drive"] == 0


@pytest.mark.slow
def test_what_drive_missed_is_brought_by_the_next_resume(parent, reference, tally):
    arrive_later(parent, reference, tally)


@pytest.mark.slow
def test_drive_that_goes_back_to_older_files_gives_equal_bits(parent, reference, tally):
    for seed in (1, 2):
        age_drive(parent, reference, tally, seed=seed)
    assert tally.counts["files that went back"] >= 2


@pytest.mark.slow
def test_resume_on_a_drive_that_fails_says_so_in_a_sentence(parent, reference, tally):
    start_without_drive(parent, reference, tally, seed=1)


@pytest.mark.slow
def test_an_hour_of_training_writes_little_to_drive(parent, tally):
    per_hour = write_hours(parent, tally, hours=1.2, factor=1500)
    assert 1 < per_hour["slot"] < 4 and per_hour["session"] <= 13 and per_hour.get("heartbeat", 0) <= 120


# ------------------------------------------------------------------------------------------- commands, hostile files
@pytest.fixture(scope="module")
def workspace(tmp_path_factory, parent):
    """A trial on Drive with two finished and exported runs, and a copy of it."""
    folder = tmp_path_factory.mktemp("workspace")
    trial = finished(parent, folder / "trial", on_drive=True, quick=True)
    copy(trial.folder, folder / "saved")
    return trial, folder / "saved"


@pytest.mark.parametrize(("words", "stride"), [
    (["export", "--run", "first"], 3), (["tidy", "--keep", "1", "--delete"], 17)], ids=["export", "tidy"])
def test_command_killed_at_some_of_its_writes_leaves_a_usable_bundle(workspace, parent, tally, words, stride):
    """And given again it ends as the undisturbed one does."""
    first = min(path.name for path in workspace[1].glob("MyDrive/home/models/*T*"))
    kill_command(parent, tally, *workspace, words[0], [first if word == "first" else word for word in words],
                 stride=stride)
    assert tally.counts[f"good: {words[0]}"] > 3


@pytest.mark.parametrize("stride", slow_but(5, [1]))
def test_deploy_and_rollback_killed_at_their_writes_leave_a_whole_champion_and_end_when_given_again(
        workspace, parent, tally, stride):
    trial, saved = workspace
    first = min(path.name for path in saved.glob("MyDrive/home/models/*T*"))
    kill_command(parent, tally, trial, saved, "deploy", ["deploy", "--run", first, "--force"], stride=stride)
    kill_command(parent, tally, trial, saved, "rollback", ["rollback"], stride=stride)
    assert min(tally.counts[f"good: {name}"] for name in ("deploy", "rollback")) > 10 / stride


@pytest.mark.slow
@ON_DRIVE
def test_commands_killed_at_some_of_their_writes_end_as_undisturbed_ones_when_given_again(parent, tally, on_drive):
    kill_commands(parent, tally, on_drive=on_drive, stride=83)
    assert len(tally.counts) >= 2 * 8


@pytest.mark.parametrize(("points", "seed", "on_drive"), slow_but((2, 1, False), [(6, 2, False), (4, 3, True)]))
def test_week_killed_at_some_of_its_writes_has_a_whole_champion_and_completes_when_given_again(
        parent, tally, points, seed, on_drive):
    kill_week(parent, tally, points=points, seed=seed, on_drive=on_drive)
    assert tally.counts["kills: weekly"] >= points - 1


def test_links_pipes_and_devices_in_every_folder_change_nothing(workspace, parent, tally):
    """Neither outside of the workspace, nor what commands do."""
    copy(workspace[1], workspace[0].folder)
    strays_everywhere(parent, workspace[0], tally, ALL[:4] + LOOKING[3:])
    assert tally.counts["special files"] > 1000


@pytest.mark.slow
@ON_DRIVE
def test_links_pipes_and_devices_in_place_of_files_are_refused_or_harmless(parent, tally, on_drive):
    special_files(parent, tally, random.Random(1), on_drive=on_drive, n=6)


@pytest.mark.parametrize("wanted", slow_but(("zeros.zip", "session.json deep"), [
    (("runs.parquet", "long names.parquet", "rows.csv.gz", "global.pt compressed", "trees_final compressed"),),
    (("a FIFO", "an endless file", "digits"),)]))
def test_small_files_that_ask_for_much_memory_are_refused(workspace, parent, tally, wanted):
    copy(workspace[1], workspace[0].folder)
    memory(parent, workspace[0], tally, lambda name: name.endswith(wanted))
    assert tally.worst["GB of memory"] < 2


# ------------------------------------------------------------------------------------------------ machines and people
@pytest.mark.parametrize("fault", slow_but(others.file_size_limit, [
    fault for fault in others.OTHERS if fault is not others.file_size_limit]), ids=lambda fault: fault.__name__)
def test_run_survives(parent, reference, tally, fault):
    if fault in others.NEEDS_MOUNT and not can_mount():
        pytest.skip("no disk can be mounted here")
    fault(parent, reference, tally)
    assert tally.counts


@functools.cache
def can_mount():
    return others.can_mount()


@pytest.mark.slow
@pytest.mark.parametrize("take_over", [False, True])
def test_two_owners_at_once_leave_one(parent, second_parent, reference, tally, take_over):
    race((parent, second_parent), reference, tally, take_over=take_over)


@pytest.mark.slow
@ON_DRIVE
def test_owner_that_is_taken_over_stops_and_overwrites_nothing(parent, second_parent, reference, tally, on_drive):
    taken_over((parent, second_parent), reference, tally, on_drive=on_drive)


def test_second_process_leaves_alone_what_the_first_one_is_writing(tmp_path):
    """It clears the scratch files of a killed process; those of one that it takes over from are still needed."""
    store = CheckpointStore(Workspace(tmp_path), "run")

    def write(file):
        file.write(b"half")
        store.clear_scratch()

    write_atomic(store.folder / "slot_a", write)
    assert (store.folder / "slot_a").read_bytes() == b"half"


def test_full_disk_in_the_middle_of_a_state_is_called_a_full_disk(tmp_path):
    """torch answers an OSError of the file below it with a RuntimeError of its own."""
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 200_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "open", lambda path, mode: io.BufferedWriter(Full(path, mode.replace("b", ""))),
                      raising=False)
        with pytest.raises(StorageError, match="the disk is full"):
            write_payload(tmp_path / "slot_a", lambda file: torch.save({"weights": torch.zeros(100_000)}, file), 1)


@pytest.mark.slow
def test_machine_that_comes_back_goes_on_where_the_other_one_paused(parent, reference, tally):
    comes_back(parent, reference, tally)


# -------------------------------------------------------------------------------------------------- the harness itself
@pytest.mark.slow
def test_harness_notices_other_bits_and_torn_files(tmp_path, parent, reference):
    trial = Trial(tmp_path, "tiny")
    result = parent.run(trial.job("train", every=EVERY))["result"]
    assert reference.differences(trial, result) == []
    assert reference.differences(trial, result | {"hashes": result["hashes"] | {"global_final": "0"}}) == [
        "global_final: other bits"]
    run = trial.run_folders()[0]
    for name in ("slot_a", "session.json", "done/trees_fold1"):
        (run / name).write_bytes((run / name).read_bytes()[:-3])
    assert len(trial.torn(run)) == 3


@pytest.mark.slow
def test_harness_sees_every_kind_of_write_and_kills_in_its_middle(parent):
    with folder_for("harness") as folder:
        trial = Trial(folder, "tiny")
        parent.run(trial.job("train", every=EVERY, shim={"list": True}))
        calls = [event for event in trial.events() if event[0] == "call"]
        assert {event[2] for event in calls} == {"mkdir", "open", "write", "fsync", "replace", "unlink"}
        slot = next(int(event[1]) for event in calls if event[2] == "write" and event[4] == "slot_a.new")
        cut = Trial(folder / "cut", "tiny")
        assert parent.run(cut.job("train", every=EVERY, shim={"kill_at": slot, "how": "middle"}))["exit"] == -9
        assert list(cut.home.glob("checkpoints/*/.slot_a.*.part")) and not list(cut.home.glob("checkpoints/*/slot_a"))


def test_every_damage_changes_the_content():
    chance = random.Random(1)
    content = bytes(range(1, 256))
    assert all(damaged(content, chance)[0] != content for _ in range(500))
