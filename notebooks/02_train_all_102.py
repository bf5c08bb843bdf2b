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
# # 2 · Train: the order of the stocks of a day (vnq_colab 0.2.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.2.0/notebooks/02_train_all_102.ipynb)
#
# Trains three families of models: `trees` (gradient boosting) and `global` (one network of all stocks), which learn where a stock will stand among all stocks of its day, and `stockformer`, that network fine-tuned for each of the 102 symbols. Each judged year has models of its own, trained on the days before it; the final fit on all days is what you will use.
# All of it is one list of jobs. A finished job is kept in your folder, the one at work every 20 minutes. If the machine goes away, notebook 3 goes on where it stopped, on any machine.
#
# <img src="learning.png" width="360" alt="Rank correlation on validation days by number of trees and by epoch, on a synthetic market">
#
# | | |
# |---|---|
# | hardware | any GPU (T4 is chosen; L4 and A100 are faster: Runtime > Change runtime type), or none |
# | expected time | about half an hour on one CPU core, for 102 symbols and 8 judged years; not measured on a GPU. While it trains, the line below the cell says what is left, from the jobs that this machine has finished |
# | cost | the first form says how many compute units an hour this machine takes, the last cell what the notebook took |
# | told when it ends | by mail, Telegram, Zalo or Slack, if you wish: `%pip install apprise`, and an address such as `tgram://…` as the secret `VNQ_NOTIFY` (the key on the left) |
# | before | notebook 1 |
#
# Run all, as often as you like: what is done already is not done again.
#
# Colab counts a running cell as activity, and nothing else: training stays in its cell, prints a line now and then, and gives a sign of life in your folder. No clicking or other tricks: they do not keep a machine, and can cost the account.

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
# ## What to train, and on what machine
# Empty fields are the defaults. Below: the machine that you were given, its price in compute units and the hours it has left.

# %% cellView="form"
#@title What to train
FAMILIES = ""  #@param {type: "string", placeholder: "for example global,trees; empty: stockformer, global and trees"}
FOLDS = 0  #@param {type: "integer", placeholder: "3: judge the last three years; 0: as many as the data has, at most 8"}
RECIPE = "default"  #@param ["default", "original", "original-cpu"] {allow-input: true}
SYMBOLS = ""  #@param {type: "string", placeholder: "judged, for example FPT,VCB,HPG; empty: all of the 102 that the data has. Every stock is learnt from"}
machine = vnq.describe_machine()
machine

# %% [markdown]
# ## The data of notebook 1
# What models learn from, and the years in which they are judged.

# %%
prepared = vnq.load_prepared(ws)
prepared

# %% [markdown]
# ## Other settings, if you wish
# With `TRIALS` above 0 so many settings of one family are tried, on validation days of the first four judged years, and the best are trained below. A trial takes as long as half of those years. Off unless you ask: what is searched is charged in the verdict.

# %% cellView="form"
#@title Search for better settings (needs `%pip install optuna`)
TRIALS = 0  #@param {type: "integer", placeholder: "30: settings that are tried; 0: none"}
SEARCHED = "trees"  #@param ["trees", "global", "stockformer"]
start = vnq.RunConfig.for_machine(machine, recipe=RECIPE)
found = TRIALS and vnq.search(ws, prepared.panel, start, family=SEARCHED, n_trials=TRIALS, hours=machine.hours_left)
RECIPE = (found and found.recipe) or RECIPE
found or "TRIALS is 0: nothing is searched"

# %% [markdown]
# ## Training
# A line for each job that is done, and one that moves: the job at work, how far, and the time left. Skill above 0 on validation days means that something was learnt. Stopping loses nothing.

# %%
config = vnq.RunConfig.for_machine(machine, recipe=RECIPE)
config = config.with_setting("families", FAMILIES) if FAMILIES else config
config = config.with_setting("folds", str(FOLDS)) if FOLDS else config
config = config.with_setting("symbols", SYMBOLS) if SYMBOLS else config
session = vnq.train(ws, prepared.panel, config, hours=machine.hours_left, on_finish=vnq.notify_session)
print("Done: now run 04_validate." if session.status == "finished" else "Not finished: 03_resume goes on with it.")
session

# %% [markdown]
# ## The jobs
# Each family once for each judged year, and once more for the final fit, which is what you will use.

# %%
vnq.table(session.jobs_table())

# %% [markdown]
# ## Did they learn
# What was reached on days that were held out, by tree or by epoch; the dashed line is no skill. A line that falls at the end would mean that training went on too long.

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
# | `nothing is prepared yet` | run notebook 1 first |
# | the machine went away, or the cell was stopped | run notebook 3; at most the minutes since the last checkpoint are lost |
# | you have two machines | `vnq.train(..., part="1/2")` on one, `part="2/2"` on the other; each trains every second fold, whoever is last the final fit, and notebooks 4 and 5 take both as one run |
# | `paused`: the hours are used up | run notebook 3 on a new machine; with Pro+ a machine lives up to 24 hours, without it up to 12: its `PLAN_HOURS` says which |
# | the GPU is not the one you wished for | what was given is printed above and is used; only the speed differs |
# | `does not fit … going on with …` | nothing to do: the pack was halved and goes on; when not even one symbol fits, the sentence says what to change |
# | you want to stop | the Stop button, or Runtime > Interrupt: both save first, and `03_resume` goes on |
# | compute units go on being used afterwards | `vnq.release_gpu()` in a new cell at the end gives the machine back, once everything is in Drive |
# | `XGBoost is needed …` | `pip install xgboost`, which Colab has; or leave `trees` out of `FAMILIES` |
