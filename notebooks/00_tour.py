# ---
# jupyter:
#   colab:
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Tour: from prices to tomorrow's orders in two minutes (vnq_colab 0.2.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.2.0/notebooks/00_tour.ipynb)
#
# Press **Runtime > Run all**. You get, from prices alone: a forecast of the order in which 102 stocks will do over the next five days, what that order was worth on two years that the models had not seen, what a basket made of it earned after all costs, and a list of orders for tomorrow. One of the four pictures on the way:
#
# <img src="order.png" width="360" alt="Returns of the stocks by their place in the forecast order, and the rank correlation by horizon, on a synthetic market">
#
# The market is **SYNTHETIC**: 102 made-up stocks in which a weak signal was planted, so that there is something to find. At the end you bring your own prices. None of this is advice.
#
# | | |
# |---|---|
# | hardware | the free machine: 2 CPU cores, no GPU; no compute units |
# | expected time | about a minute and a half; the last cell says how long it took here |
# | before | nothing. Google Drive is not touched, and nothing leaves this machine |

# %% cellView="form"
#@title Install
import glob, importlib.util
if importlib.util.find_spec("vnq_colab") is None:  # a wheel that lies beside the notebook, else the published version
    wheels = sorted(glob.glob("vnq_colab-*.whl"))
    # %pip install --quiet --no-deps {(["git+https://github.com/OWNER/vnq_colab@v0.2.0"] + wheels)[-1]}
import vnq_colab as vnq
machine = vnq.describe_machine()
machine

# %% [markdown]
# ## Whose prices
# Leave it as it is the first time. With prices of your own, choose one of the other three here, and press Run all again.

# %% cellView="form"
#@title Prices
FROM = "made-up market"  #@param ["made-up market", "upload", "my Google Drive", "share link"]
LINK = ""  #@param {type: "string", placeholder: "of a file or a folder, shared with anyone who has the link"}
ws = vnq.open_workspace(None if FROM == "my Google Drive" else f"VN-Quant-Tour/{FROM}")
print(vnq.upload_prices(ws) if FROM == "upload" else f"{FROM} {LINK}")
prepared = vnq.prepare(ws, LINK if FROM == "share link" else None)
prepared

# %% [markdown]
# ## 1 · The prices
# Each row is a stock, each column a day: blue where it was traded, white before it was listed. Models learn from the days before a line, and are judged on the year after it.

# %%
vnq.plots.coverage(prepared.panel, prepared.folds, note=prepared.note)

# %% [markdown]
# ## 2 · Learning the order
# Two kinds of models, boosted trees and a small transformer, learn from 50 features a day where a stock will stand among all stocks five days later. It is done once for each judged year, with the days before it alone, and once more with all days, for tomorrow.

# %%
session = vnq.train(ws, prepared.panel, vnq.RunConfig.for_machine(machine, recipe="tour"))
session

# %% [markdown]
# ## 3 · What the order is worth
# The stocks of each day in ten groups by their forecast, worst to best: if the order means something, the bars rise. Below, how strongly forecast and outcome agree by horizon: 0 is a coin, 1 is knowing the future; with real prices 0.1 is good, and above 0.2 one looks for an error first.

# %%
validation = vnq.validate(session, prepared=prepared)
vnq.plots.order(validation.order, note=session.note)

# %% [markdown]
# ## 4 · What a basket of the best earned
# The best stocks with equal weights, bought at the next day's opening price, with fee, tax and slippage, under the rules of the exchange; beside it all stocks with equal weights. Below, how far each was under its highest value.

# %%
vnq.plots.basket(validation.basket, note=session.note) if validation.basket else "Too few stocks for a basket."

# %% [markdown]
# ## 5 · May it be traded
# The verdict asks what luck could not pass: enough days and stocks, an order above 0, a basket that earns more than all stocks and than random baskets after costs, and nothing too good to be true.

# %%
import pandas as pd
print(validation.verdict.summary["text"])
vnq.table(pd.DataFrame(validation.verdict.market["gates"], columns=["asked", "passed", "measured"]))

# %% [markdown]
# ## 6 · What to do tomorrow
# Every stock by the lead that is forecast for it over the mean stock in 5 days; what the orders buy is marked. Below, the orders in whole lots of 100, each inside tomorrow's price band, for 500 million VND on paper, and the ranking that they come from. Where the verdict is no, there are no orders.

# %%
from IPython.display import display
bundle = vnq.export_bundle(session, validation.verdict)
plan = vnq.plan_day(ws, bundle, prepared.prices, index=prepared.index, capital=500e6)
display(vnq.plots.evening(plan.table, plan.orders, note=prepared.note))
plan

# %% cellView="form"
#@title The report with its tables and pictures, to keep
DOWNLOAD = False  #@param {type: "boolean"}
print(f"The tour took {machine.spent()}.")
print(vnq.download(validation.report.parent) if DOWNLOAD else "tick DOWNLOAD for a zip of the report, its tables and pictures")

# %% [markdown]
# ## Now yours
#
# | your prices | how |
# |---|---|
# | on this computer | choose `upload` under [Whose prices](#scrollTo=00_tour-03), Run all: the browser asks for the files |
# | in Google Drive | put them into `VN-Quant-Training/data/raw/` there, choose `my Google Drive`; the results stay in that folder |
# | shared by somebody | choose `share link` and paste the link of a file or a folder |
#
# Then go on with notebook 1: it shows in full what was read and cleaned, 2 trains three families over up to eight years, 4 judges, 5 makes the orders of each evening.
#
# | you see | what to do |
# |---|---|
# | `No module named 'vnq_colab'` | the library is not published at that address: make a wheel on your own machine (`pip wheel --no-deps .` in the project's folder), put `vnq_colab-….whl` into the Files panel on the left, Run all |
# | a sentence that begins with `DataError` | it names the file, the day and what was found there, and what helps |
# | with your own prices it takes longer | the tour judges up to three years with small models; with 185 stocks over 14 years, two of them took five minutes on a busy CPU core |
# | DO NOT TRADE, or no orders | an honest answer: in these prices the order did not pay with enough certainty, or there are too few of them to say; a verdict needs at least 20 stocks and about four and a half years |
