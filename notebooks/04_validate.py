# ---
# jupyter:
#   colab:
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 4 · Validate: is the order worth anything, and for which stocks (vnq_colab 0.2.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.2.0/notebooks/04_validate.ipynb)
#
# Takes the forecasts of the judged years, each made by models trained before it; measures whether the order of the stocks of a day came as forecast, beside simple opponents; trades after costs under the rules of the exchange; and decides for every symbol. Nothing is trained here. A rejected symbol is an honest answer, not an error.
#
# | | |
# |---|---|
# | hardware | any machine; a GPU is of no use here |
# | expected time | a minute or two for 102 symbols and eight years |
# | before | notebook 2 or 3 |
#
# Run all, as often as you like: what is done already is not done again.

# %%
import glob, importlib.util, os
if importlib.util.find_spec("vnq_colab") is None:  # on Colab: the wheel in your Drive folder, else the published version
    from google.colab import drive
    os.path.isdir("/content/drive/MyDrive") or drive.mount("/content/drive")
    wheels = sorted(glob.glob("/content/drive/MyDrive/VN-Quant-Training/vnq_colab-*.whl"), key=os.path.getmtime)
    # %pip install --quiet --no-deps {(["git+https://github.com/OWNER/vnq_colab@v0.2.0"] + wheels)[-1]}
import vnq_colab as vnq
print(f"vnq_colab {vnq.__version__}: {(ws := vnq.open_workspace())!r}")

# %% cellView="form"
#@title What to judge, and how
RUN = ""  #@param {type: "string", placeholder: "the beginning of a run's name; empty: the latest run"}
GATES = "honest"  #@param ["honest", "original"]
session = vnq.latest_session(ws, RUN or None)
session

# %%
validation = vnq.validate(session, gates=GATES)
validation

# %%
from IPython.display import Image, display
display(validation.order)  # of each family: mean rank correlations of a day, close to close and open to open
Image(filename=str(validation.report.with_name("rank_correlation.png")), width=620)

# %%
from IPython.display import display
display(vnq.plots.equity(validation.result, validation.chance, note=session.note))
vnq.plots.symbol_accuracy(validation.scores, validation.family, note=session.note)

# %%
vnq.browse(validation, note=session.note)

# %%
import pandas as pd
pd.set_option("display.max_colwidth", None)
table = pd.DataFrame.from_dict(validation.verdict.symbols, orient="index")
table.assign(reasons=table["reasons"].str.join(" "))[["decision", "reasons"]].sort_values("decision")

# %% cellView="form"
#@title The whole report
from html import escape
from IPython.display import HTML
page = escape(validation.report.read_text(encoding="utf-8"))
HTML(f'<div><iframe srcdoc="{page}" width="100%" height="900" style="border: 0"></iframe></div>')

# %% [markdown]
# ## If something goes wrong
#
# | you see | what to do |
# |---|---|
# | `No module named 'vnq_colab'` | the library is not published at that address: make a wheel on your own machine (`pip wheel --no-deps .` in the project's folder) and put `vnq_colab-….whl` into the folder `VN-Quant-Training` of your Drive |
# | `No module named 'google'` | this is not Colab: install the library first, with `pip install -r requirements-local.txt` in the project's folder |
# | `Google Drive did not open (…)` | the sentence after it says what helps; usually: run the first cell again and allow the access |
# | `jobs are not trained yet` | run notebook 3 until it says that the run is finished |
# | no field to choose a symbol in | without ipywidgets the best symbol is shown; `vnq.browse(validation, "FPT")` begins with another |
# | no symbol is accepted | no model beat its opponents with enough certainty; the reasons are in the table above |
# | an accuracy above 65 % | too good to be true: such a symbol is not accepted until the leak checks pass |
