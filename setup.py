"""Says which Python is needed, also to one of long ago, before anything is built. The package is in setup.cfg."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("vnq_colab needs Python 3.11 or newer; this is %d.%d. " % sys.version_info[:2] +  # noqa: UP031
             "Install one (Windows: winget install Python.Python.3.13; Ubuntu, Debian: sudo apt install "
             "python3.11-venv; macOS: brew install python@3.13), and make the environment with it: python3.13 -m venv "
             "--clear .venv (or python3.11; on Windows py -3.13).")

from setuptools import setup

setup()
