# ---
# jupyter:
#   colab:
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 4 · Validate: which models deserve to be used (vnq_colab 0.1.0)
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vnq_colab/blob/v0.1.0/notebooks/04_validate.ipynb)
#
# Forecasts the test days, which no network has seen; compares with simple opponents; trades after costs under the rules of the exchange; and decides for every symbol. Most symbols of a real market are rejected: that is the honest answer, not an error.
#
# | | |
# |---|---|
# | hardware | any machine; a GPU is of no use here |
# | expected time | a good minute for 102 symbols (measured on two cores); with `WALK_FORWARD` as many trainings more |
# | before | notebook 2 or 3 |
#
# Run all, as often as you like: what is done already is not done again.

# %%
import glob, importlib.util, os
if importlib.util.find_spec("vnq_colab") is None:  # on Colab: the wheel in your Drive folder, else the published version
    from google.colab import drive
    os.path.isdir("/content/drive/MyDrive") or drive.mount("/content/drive")
    wheels = sorted(glob.glob("/content/drive/MyDrive/VN-Quant-Training/vnq_colab-*.whl"), key=os.path.getmtime)
    # %pip install --quiet --no-deps {(["git+https://github.com/OWNER/vnq_colab@v0.1.0"] + wheels)[-1]}
import vnq_colab as vnq
print(f"vnq_colab {vnq.__version__}: {(ws := vnq.open_workspace())!r}")

# %% cellView="form"
#@title What to judge, and how
RUN = ""  #@param {type: "string", placeholder: "the beginning of a run's name; empty: the latest run"}
GATES = "honest"  #@param ["honest", "original"]
WALK_FORWARD = 0  #@param {type: "integer", placeholder: "8: train anew before each of 8 stretches of days, and judge on all of them; 0: judge the test days"}
session = vnq.latest_session(ws, RUN or None)
session

# %%
machine = vnq.describe_machine()
validation = vnq.validate(session, gates=GATES, walk_forward=WALK_FORWARD, hours=machine.hours_left)
validation

# %%
vnq.plots.symbol_accuracy(validation.scores, note=session.note)

# %%
vnq.plots.equity(validation.result, validation.chance, note=session.note)

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
# | `has no finished pack yet` | run notebook 3 until the first pack is done |
# | no field to choose a symbol in | without ipywidgets the best symbol is shown; `vnq.browse(validation, "FPT")` begins with another |
# | no symbol is accepted | no model beat its opponents with enough certainty; the reasons are in the table above |
# | an accuracy above 65 % | too good to be true: such a symbol is not accepted until the leak checks pass |
