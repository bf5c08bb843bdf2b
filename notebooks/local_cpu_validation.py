# ---
# jupyter:
#   colab:
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Local check: the whole way on a desktop, with a few symbols (vnq_colab 0.2.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.2.0/notebooks/local_cpu_validation.ipynb)
#
# Prepare, train, validate, trade by a rule of your own and look at two evenings, with one judged year, three symbols and no GPU: to see that everything works before 102 symbols are trained over eight years, or to judge an idea. Every stock of the data is learnt from all the same. Made for an i7-14700 with local Jupyter; any machine will do.
#
# <img src="order.png" width="360" alt="Returns of the stocks by their place in the forecast order, and the rank correlation by horizon, on a synthetic market">
#
# | | |
# |---|---|
# | hardware | a desktop CPU; the profile `i7-14700` is chosen where that processor is found |
# | expected time | minutes with recipe `default`; longer with `original-cpu` (50 epochs, batch 4); while it trains, the line below the cell says what is left, from the jobs that are done |
# | before | `pip install -r requirements-run.txt`, and price files in `data/raw/`; without any you get a SYNTHETIC market |
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
# ## What to try
# Three symbols are enough to see the whole way. Below: this machine.

# %% cellView="form"
#@title What to try
PRICES = ""  #@param {type: "string", placeholder: "a file or a folder; empty: data/raw, or a made-up market when that is empty"}
SYMBOLS = "FPT,VCB,HPG"  #@param {type: "string"}
RECIPE = "default"  #@param ["default", "original-cpu"]
PROFILE = "automatic"  #@param ["automatic", "i7-14700", "cpu"]
machine = vnq.describe_machine(None if PROFILE == "automatic" else PROFILE)
machine

# %% [markdown]
# ## The prices
# How many stocks and days, and what was found in the rows.

# %%
prepared = vnq.prepare(ws, PRICES or None)
prepared

# %% [markdown]
# ## Training
# A line for each job that is done, and one that moves with the time left.

# %%
symbols = prepared.panel.symbols[:3] if prepared.synthetic else tuple(SYMBOLS.replace(" ", "").split(","))
config = vnq.RunConfig.for_machine(machine, recipe=RECIPE, symbols=symbols, folds=1)
session = vnq.train(ws, prepared.panel, config, hours=machine.hours_left)
print("Done." if session.status == "finished" else "Not finished: run this cell again, and it goes on.")
session

# %% [markdown]
# ## Did they learn
# What was reached on days that were held out; the dashed line is no skill.

# %%
vnq.plots.learning_curves(session, note=session.note)

# %% [markdown]
# ## The verdict
# With three stocks the market cannot be judged; the numbers of the order are there all the same.

# %%
validation = vnq.validate(session, prepared=prepared)
validation

# %% [markdown]
# ## A strategy of your own
# A function from a day's forecasts, and what is held (shares of the account), to target weights: traded under the rules of the exchange, after all costs, beside buy and hold.

# %%
def my_rule(today, held):
    best = today.nlargest(1, "score")["symbol"]
    return dict.fromkeys(best, 1.0)
own = vnq.backtest(validation.forecast, prepared.prices, family=validation.family, strategy=my_rule)
own

# %% [markdown]
# ## Two evenings
# As of the closes of the last two days; the second says what became of the first one's orders.

# %%
bundle = vnq.export_bundle(session, validation.verdict)
before, day = prepared.panel.days[-2:].strftime("%Y-%m-%d")
vnq.plan_day(ws, bundle, prepared.prices, index=prepared.index, as_of=before, capital=500e6)
vnq.plan_day(ws, bundle, prepared.prices, index=prepared.index, as_of=day, capital=500e6)

# %% cellView="form"
#@title The report with its tables and pictures, to keep
DOWNLOAD = False  #@param {type: "boolean"}
print(f"Took {machine.spent()}.")
print(vnq.download(validation.report.parent) if DOWNLOAD else "tick DOWNLOAD for a zip of the report, its tables and pictures")

# %% [markdown]
# ## If something goes wrong
#
# | you see | what to do |
# |---|---|
# | `No module named 'vnq_colab'` | the library is not published at that address: make a wheel on your own machine (`pip wheel --no-deps .` in the project's folder) and put `vnq_colab-….whl` into the folder `VN-Quant-Training` of your Drive |
# | `No module named 'google'` | this is not Colab: install the library first, with `pip install -r requirements-run.txt` in the project's folder |
# | `unicodeescape`, or a path that is not found on Windows | write the path with `/`: `C:/Users/me/gia.csv` |
# | `Google Drive did not open (…)` | the sentence after it says what helps; usually: run the first cell again and allow the access |
# | `the data has no symbol …` | name symbols of your own files in `SYMBOLS` |
# | the folder is not where you want it | set the variable `VNQ_HOME` to another folder before you start Jupyter |
# | training is slow | close what else uses the processor; the first cells say how many cores are used |
