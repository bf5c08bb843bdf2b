# ---
# jupyter:
#   colab:
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 5 · Export: the files that predict every day, and tomorrow's orders (vnq_colab 0.2.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.2.0/notebooks/05_export.ipynb)
#
# Writes the final fit, which notebook 2 or 3 has trained on all days, with the decisions of notebook 4: one file for all stocks from each family, one for each symbol's own networks, and a manifest; deploys it, if it deserves that beside the models in use; then ranks the stocks for tomorrow and makes the orders. Where the market is not accepted there is a ranking only. Nothing is trained here.
#
# <img src="evening.png" width="360" alt="Every stock by its forecast lead over the mean stock, with what the orders buy, on a synthetic market">
#
# | | |
# |---|---|
# | hardware | any machine; a GPU is of no use here |
# | expected time | some seconds; the last cell says how long it took here. No compute units on a machine without GPU |
# | before | notebook 4, or every symbol is exported as `unjudged` |
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
# ## What to export, and for whom the orders are
# Empty: the latest run, a portfolio on paper with `CAPITAL` in VND, and today. Below: the run.

# %% cellView="form"
#@title What to export, and for whom the orders are
RUN = ""  #@param {type: "string", placeholder: "the beginning of a run's name; empty: the latest run"}
PORTFOLIO = ""  #@param {type: "string", placeholder: "the path of your portfolio.csv; empty: a new one on paper"}
CAPITAL = 500_000_000  #@param {type: "number"}
AS_OF = ""  #@param {type: "string", placeholder: "to look back: the day whose close is known, 2026-07-03; empty: today"}
machine, session = vnq.describe_machine(), vnq.latest_session(ws, RUN or None)
session

# %% [markdown]
# ## The bundle
# The models that forecast every day, with the decisions on the market and each stock; `manifest.json` in its folder names every file with its hash.

# %%
bundle = vnq.export_bundle(session)
bundle

# %% [markdown]
# ## Is it used from now on
# It becomes the champion, whose forecasts the orders are made of, if its market was accepted and it is not worse than the present one.

# %%
try:  # takes the place of the champion, by which orders are made, if its market was accepted and it is not worse
    deployment = vnq.deploy(ws, session.run_id)  # vnq.rollback(ws) goes back in one step
except vnq.VnqError as refusal:
    deployment = refusal
print(deployment)

# %% [markdown]
# ## What to do tomorrow
# Orders in whole lots inside the day's price band, and the ranking that they come from. "edge" is the forecast lead over the mean stock in 5 days. Where the market is not accepted there is a ranking only.

# %%
prepared = vnq.load_prepared(ws, session.data_id)
plan = vnq.plan_day(ws, vnq.load_bundle(ws), prepared.prices, index=prepared.index, as_of=AS_OF or None, portfolio=PORTFOLIO or None, capital=CAPITAL)
plan

# %% [markdown]
# ## Every stock
# By the lead that is forecast for it over the mean stock in 5 days, with what the orders buy and sell; below, the whole ranking: a click on a head sorts, the field searches.

# %%
from IPython.display import display
display(vnq.plots.evening(plan.table, plan.orders, note=prepared.note))
vnq.table(plan.table.drop(columns=["lifts", "lowers", "explained_by"]))

# %% [markdown]
# ## Why it stands there
# The three features that lift a stock most, and the three that lower it, by the trees alone: points of their score from the mean stock of the day, and the rank that they give it. Low, high: in the lowest or highest third of all stocks.

# %%
vnq.table(plan.table[["rank", "symbol", "lifts", "lowers", "explained_by"]])

# %% [markdown]
# ## What nothing needs any more
# Old runs, bundles and data sets. Nothing is removed; `vnq.tidy(ws, delete=True)` in a new cell removes it.

# %%
vnq.tidy(ws)

# %% cellView="form"
#@title The bundle, to keep
DOWNLOAD = False  #@param {type: "boolean"}
print(f"Took {machine.spent()}.")
print(vnq.download(bundle.folder) if DOWNLOAD else "tick DOWNLOAD for a zip of the models, as models/ in your folder has them")

# %% [markdown]
# ## If something goes wrong
#
# | you see | what to do |
# |---|---|
# | `No module named 'vnq_colab'` | the library is not published at that address: make a wheel on your own machine (`pip wheel --no-deps .` in the project's folder) and put `vnq_colab-….whl` into the folder `VN-Quant-Training` of your Drive |
# | `No module named 'google'` | this is not Colab: install the library first, with `pip install -r requirements-run.txt` in the project's folder |
# | `unicodeescape`, or a path that is not found on Windows | write the path with `/`: `C:/Users/me/gia.csv` |
# | `Google Drive did not open (…)` | the sentence after it says what helps; usually: run the first cell again and allow the access |
# | `jobs are not trained yet` | run notebook 3 until it says that the run is finished |
# | `… is not deployed` | the sentence says why, and the models in use stay; `vnq.deploy(ws, session.run_id, force=True)` deploys them all the same, and writes that down |
# | every decision is `unjudged` | run notebook 4, then this one again |
# | PRICES ARE … SESSIONS OLD, and no orders | bring newer files and run notebook 1; to look back, name the last day in `AS_OF` |
# | all orders are `wait`, "market not accepted" | the order does not pay with enough certainty: a ranking, nothing to trade on |
# | the forecasts are needed on another machine | copy the folder `models/<run>` there, and run `python -m vnq_colab predict --data PRICES --models FOLDER` |
