# ---
# jupyter:
#   colab:
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 4 · Validate: may this be traded, and which stocks (vnq_colab 0.2.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.2.0/notebooks/04_validate.ipynb)
#
# Takes the forecasts of the judged years, each made by models trained before it, and judges the market first: does the order of the stocks of a day hold, beside simple opponents, and does a basket pay after costs, under the rules of the exchange? Then each stock. Nothing is trained here. A rejected market is an honest answer, not an error.
#
# <img src="report.png" width="360" alt="First screen of the report of the synthetic market, on a phone">
#
# | | |
# |---|---|
# | hardware | any machine; a GPU is of no use here |
# | expected time | a minute or two for 102 symbols and eight years; the last cell says how long it took here. No compute units on a machine without GPU |
# | before | notebook 2 or 3 |
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
# ## What to judge, and how
# Empty: the latest run. Below: what was trained, and on which data.

# %% cellView="form"
#@title What to judge, and how
RUN = ""  #@param {type: "string", placeholder: "the beginning of a run's name; empty: the latest run"}
GATES = "honest"  #@param ["honest", "original"]
machine, session = vnq.describe_machine(), vnq.latest_session(ws, RUN or None)
session

# %% [markdown]
# ## The verdict
# May this market be traded: the answer, and what was asked of it. All numbers: `validation` in a new cell.

# %%
import pandas as pd
validation = vnq.validate(session, gates=GATES)
print(validation.verdict.summary["text"])
vnq.table(pd.DataFrame(validation.verdict.market["gates"], columns=["asked", "passed", "measured"]))

# %% [markdown]
# ## The report
# One page for a phone or a desk, which you can also open from `reports/` in your folder. Its first screen says what to do.

# %% cellView="form"
#@title The report: its first screen says what to do
from html import escape
from IPython.display import HTML
page = escape(validation.report.read_text(encoding="utf-8"))
HTML(f'<div><iframe srcdoc="{page}" width="100%" height="860" style="border: 0"></iframe></div>')

# %% [markdown]
# ## The order
# The stocks of each day in groups by their forecast, worst to best: if the order means something, the bars rise. Below, how strongly forecast and outcome agree by horizon; 0 is a coin.

# %%
vnq.plots.order(validation.order, note=session.note)

# %% [markdown]
# ## Feature importance
# How far each feature moves a stock's score by the trees, up or down, from that of the day's mean stock; the lines span the folds. What lifts and what lowers a stock is told below, with the stock.

# %%
explained = validation.explained
vnq.plots.importance(explained.importance, explained.family, note=session.note) if explained else "No family of this run can explain itself."

# %% [markdown]
# ## The basket
# What the best stocks earned after fee, tax and slippage, beside all stocks with equal weights and the index; below, how far each was under its highest value.

# %%
vnq.plots.basket(validation.basket, note=session.note) if validation.basket else "Too few stocks for a basket."

# %% [markdown]
# ## Each stock's direction
# How often the forecast of up or down was right, stock by stock, beside what as many coins would do. Most of it is luck; the order above is what is traded.

# %%
decisions = pd.DataFrame(validation.verdict.symbols).loc["decision"].to_dict()
vnq.plots.accuracies(validation.scores, validation.family, decisions, note=session.note)

# %% [markdown]
# ## One stock
# Choose a stock and a family: its last forecasts, what happened, and the decision on it with its reasons.

# %%
vnq.browse(validation, note=session.note)

# %% cellView="form"
#@title The report with its tables and pictures, to keep
DOWNLOAD = False  #@param {type: "boolean"}
print(f"Took {machine.spent()}. Next: 05_export.")
print(vnq.download(validation.report.parent) if DOWNLOAD else "tick DOWNLOAD for a zip of the report, its tables and pictures")

# %% [markdown]
# ## If something goes wrong
#
# | you see | what to do |
# |---|---|
# | `No module named 'vnq_colab'` | the library is not published at that address: make a wheel on your own machine (`pip wheel --no-deps .` in the project's folder) and put `vnq_colab-….whl` into the folder `VN-Quant-Training` of your Drive |
# | `No module named 'google'` | this is not Colab: install the library first, with `pip install -r requirements-run.txt` in the project's folder |
# | `Google Drive did not open (…)` | the sentence after it says what helps; usually: run the first cell again and allow the access |
# | `jobs are not trained yet` | run notebook 3 until it says that the run is finished |
# | no fields to choose in | without ipywidgets the best stock is shown; `vnq.browse(validation, "FPT", family="trees")` begins with another |
# | DO NOT TRADE | the order does not pay with enough certainty; the first screen says why, "Why" names each question |
# | the market is for review | a number is too good to be true: look for a leak, in the data too |
# | DO NOT TRADE: not judged | fewer than 20 stocks or 500 test days: judge more of them |
