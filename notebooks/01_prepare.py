# ---
# jupyter:
#   colab:
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 1 · Prepare: from price files to training data (vnq_colab 0.2.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.2.0/notebooks/01_prepare.ipynb)
#
# Reads your price files in whatever format they come, cleans them and says what it found, computes 50 features a day, proves that none of them knows the future, and makes the folds: the years that are judged, each by models trained on the days before it.
#
# <img src="coverage.png" width="300" alt="Which of 102 stocks were traded on which days, and where the judged years begin, on a synthetic market">
#
# What lies in `data/weekly_updates/` is merged into it. The result is kept in `data/prepared/` of your folder, and the next notebook takes it. Without any price file you get a made-up market, to try everything out; all its outputs say SYNTHETIC.
#
# | | |
# |---|---|
# | hardware | any machine; a GPU is of no use here |
# | expected time | half a minute for 185 symbols of 14 years on two cores, most of it the proof; the last cell says how long it took here. No compute units on a machine without GPU |
# | before | put your price files (CafeF, vnstock, AmiBroker, cophieu68, VNDirect, Yahoo, or a table of your own; zips as they are) into `data/raw/` of the folder that the first cell prints, or paste a Drive link below, or let `COLLECT` bring the newest files of CafeF |
#
# Run all, as often as you like: the same files give the same set.

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
# ## Your prices
# Empty fields take what lies in `data/raw/` of your folder; with nothing there, a made-up market. Below the form: the files that will be read.

# %% cellView="form"
#@title Your prices
PRICES = ""  #@param {type: "string", placeholder: "a file, zip or folder, or a Drive link; empty: data/raw, or a made-up market when that is empty"}
COLLECT = False  #@param {type: "boolean"}
INDEX = ""  #@param {type: "string", placeholder: "a file of the market index; empty: a VNINDEX among the files, else the mean of all stocks"}
AS_OF = ""  #@param {type: "date"}
machine = vnq.describe_machine()
print(*([vnq.collect_prices(ws)] if COLLECT else []), PRICES or "No file is named: all of these are read; where there is none, a made-up market", *vnq.price_files(ws.raw), *vnq.price_files(ws.weekly_updates), sep="\n")

# %% [markdown]
# ## What was read
# How many stocks and days, the years that will be judged, and what was found in the rows.

# %%
prepared = vnq.prepare(ws, PRICES or None, index=INDEX or None, as_of=AS_OF or None)
prepared

# %% [markdown]
# ## What was cleaned
# Each data-quality issue: how many rows, what was done with them, and an example to look up in your file. Bars that are long, or orange, are worth a look.

# %%
from IPython.display import display
display(vnq.table(prepared.cleaning.to_frame()))
vnq.plots.cleaning(prepared.cleaning, note=prepared.note)

# %% [markdown]
# ## Who is there when
# Each row is a stock, blue where it was traded. A judged year begins at each line; its models learn from the days before it.

# %%
vnq.plots.coverage(prepared.panel, prepared.folds, note=prepared.note)

# %% [markdown]
# ## What the models see
# The 50 features of a day. Thick bars should lie inside their pale bounds; a number on the right is the share of days at a bound.

# %%
vnq.plots.feature_distributions(prepared.panel, note=prepared.note)

# %% [markdown]
# ## Do two features say the same
# Deep blue or orange away from the diagonal: two features that move together. The strongest pair is framed.

# %%
vnq.plots.feature_correlations(prepared.panel, note=prepared.note)

# %% [markdown]
# ## Does anything know the future
# Prices after a day are changed in several ways; whatever was computed up to that day must stay the same to the last bit.

# %%
review = vnq.review(prepared)
print(f"Took {machine.spent()}. Next: 02_train_all_102.")
review

# %% [markdown]
# ## If something goes wrong
#
# | you see | what to do |
# |---|---|
# | `No module named 'vnq_colab'` | the library is not published at that address: make a wheel on your own machine (`pip wheel --no-deps .` in the project's folder) and put `vnq_colab-….whl` into the folder `VN-Quant-Training` of your Drive |
# | `No module named 'google'` | this is not Colab: install the library first, with `pip install -r requirements-run.txt` in the project's folder |
# | `unicodeescape`, or a path that is not found on Windows | write the path with `/`: `C:/Users/me/gia.csv` |
# | `Google Drive did not open (…)` | the sentence after it says what helps; usually: run the first cell again and allow the access |
# | `DataError: HPG 2021-03-15: high … < low …` | correct that row in your file, or run `vnq.prepare(ws, PRICES or None, on_bad_rows="treat")` to repair such rows, `"drop"` to leave them out |
# | `DataError: … VND or thousand VND …` | say it: `vnq.prepare(ws, PRICES or None, unit={"FILE.csv": "kVND"})` |
# | `unadjusted corporate action` among the findings, and you know better | `vnq.prepare(ws, PRICES or None, treatments={"unadjusted_action": "keep"})` |
# | the download of a Drive link is refused | share the file with "anyone with the link", or copy it into `data/raw/` of this folder by hand |
# | `the newest prices are … days before …` | bring newer files, or name the day in `AS_OF` |
# | you want to know what a feature is | `vnq.table(vnq.features_table())` in a new cell: formula, unit and source of all 50 |
# | a symbol has too few days | nothing to do: it is named and left out of training |
# | `too short to train and judge` | bring a longer history: one judged year needs about 570 trading days in all |
