# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 3 · Resume: go on where training stopped (vnq_colab 0.2.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.2.0/notebooks/03_resume.ipynb)
#
# Finds the latest unfinished run and goes on with it: same config, same data, same state. It says how the last attempt ended, what that cost and what is left; with nothing left to do it says so.
#
# <img src="learning.png" width="360" alt="Rank correlation on validation days by number of trees and by epoch, on a synthetic market">
#
# | | |
# |---|---|
# | hardware | as for notebook 2; another kind of machine goes on with the same state, only the last bits may differ |
# | expected time | what was left of notebook 2; the line below the cell says how much, from the jobs that are done |
# | told when it ends | by mail, Telegram, Zalo or Slack, if you wish: `%pip install apprise`, and an address such as `tgram://…` as the secret `VNQ_NOTIFY` (the key on the left) |
# | before | notebook 2, stopped for whatever reason |
#
# By hand: on a new machine the first cell asks for access to your Drive, and you allow it. Nobody can do that for you.
#
# Run all, as often as you like: what is done already is not done again.

# %% cellView="form"
#@title Install the library, open your folder
import glob, importlib.util, os
if importlib.util.find_spec("vnq_colab") is None:  # on Colab: the wheel in your Drive folder, else the published version
    from google.colab import drive
    os.path.isdir("/content/drive/MyDrive") or drive.mount("/content/drive")
    wheels = sorted(glob.glob("/content/drive/MyDrive/VN-Quant-Training/vnq_colab-*.whl"), key=os.path.getmtime)
    # %pip install --quiet --no-deps {(["git+https://github.com/OWNER/vnq_colab@v0.2.0"] + wheels)[-1]}
import vnq_colab as vnq
print(f"vnq_colab {vnq.__version__}: {(ws := vnq.open_workspace())!r}")

# %% [markdown]
# ## What to go on with
# Empty: the latest unfinished run. Below: the machine that you were given, its price in compute units and the hours it has left.

# %% cellView="form"
#@title What to go on with
RUN = ""  #@param {type: "string", placeholder: "the beginning of a run's name; empty: the latest unfinished run"}
PLAN_HOURS = None  #@param ["None", "12", "24"] {type: "raw"}
RELEASE_GPU_WHEN_DONE = False  #@param {type: "boolean"}
TAKE_OVER = False  #@param {type: "boolean"}
machine = vnq.describe_machine(plan_hours=PLAN_HOURS)
machine

# %% [markdown]
# ## Where it stopped
# How the last attempt ended, when the last checkpoint was written, and what is done.

# %%
vnq.status(ws, RUN or None)

# %% [markdown]
# ## Training
# It goes on from the checkpoint; a line for each job that is done, and one that moves.

# %%
session = vnq.resume(ws, RUN or None, hours=machine.hours_left, take_over=TAKE_OVER,
                     on_finish=vnq.release_gpu if RELEASE_GPU_WHEN_DONE else vnq.notify_session)
print("Done: now run 04_validate." if session.status == "finished" else "Not finished: run this notebook again.")
session

# %% [markdown]
# ## The jobs
# What is done, what waits, and how long each took.

# %%
vnq.table(session.jobs_table())

# %% [markdown]
# ## Did they learn
# What was reached on days that were held out, by tree or by epoch; the dashed line is no skill.

# %%
vnq.plots.learning_curves(session, note=session.note)

# %% cellView="form"
#@title Curves and log, to keep
DOWNLOAD = False  #@param {type: "boolean"}
print(f"Took {machine.spent()}.")
print(vnq.download(ws.local.log_folder(session.run_id)) if DOWNLOAD else "tick DOWNLOAD for a zip of the curves and the log")

# %% [markdown]
# ## If something goes wrong
#
# | you see | what to do |
# |---|---|
# | `No module named 'vnq_colab'` | the library is not published at that address: make a wheel on your own machine (`pip wheel --no-deps .` in the project's folder) and put `vnq_colab-….whl` into the folder `VN-Quant-Training` of your Drive |
# | `No module named 'google'` | this is not Colab: install the library first, with `pip install -r requirements-run.txt` in the project's folder |
# | `Google Drive did not open (…)` | the sentence after it says what helps; usually: run the first cell again and allow the access |
# | `there is no run yet` | run notebook 2 first, with the same folder |
# | a checkpoint is damaged | nothing to do: the other one is taken, and the sentence says what that costs |
# | `Watching for 60 s` | another machine trained this run. If it gives no sign of life in that time, this one goes on; if you know that it is gone, tick `TAKE_OVER` and run again |
# | `is being trained by another` | stop that one first, or tick `TAKE_OVER`: the other notices at its next write, and stops |
# | `Drive is … behind` | nothing to do: training goes on, and everything is on the machine's own disk until Drive takes it; keep the machine until the sentence is gone |
# | a symbol failed | `session.failed()` says why; the other symbols are not affected |
# | `a run of the first version` | it cannot go on: run notebooks 1 and 2 again |
