"""A stand-in for Colab: its shell class, its google.colab module, and a Drive folder that appears when it is mounted.

In one process: `FakeColab(tmp_path).install(monkeypatch)`. In a notebook's kernel: `write_startup(...)`.
"""

import sys
import types
from pathlib import Path


class MessageError(Exception):
    """Named as the error of google.colab when the person refuses consent."""


class SecretNotFoundError(Exception):
    """Named as the error of google.colab where the person keeps no such secret."""


class FakeColab:
    """google.colab on a folder. `fails_with` is raised by the next mount; `calls` lists what was called."""

    def __init__(self, folder: Path, fails_with: Exception | None = None):
        self.mount_at = folder / "content" / "drive"
        self.hostname_file = folder / "hostname"
        self.fails_with = fails_with
        self.flush_fails_with: Exception | None = None
        self.calls: list[str] = []
        self.uploads: dict[str, bytes] = {}  # what the person chooses in the browser
        self.secrets: dict[str, str | Exception] = {}  # by name; an error is raised

    @property
    def drive(self) -> Path:
        return self.mount_at / "MyDrive"

    def mount(self, mountpoint: str, force_remount: bool = False, timeout_ms: int = 120_000) -> None:
        self.calls.append(f"mount {mountpoint}")
        if self.fails_with:
            raise self.fails_with
        if Path(mountpoint).is_dir() and list(Path(mountpoint).iterdir()):
            raise ValueError("Mountpoint must not already contain files")
        (Path(mountpoint) / "MyDrive").mkdir(parents=True)

    def flush_and_unmount(self, timeout_ms: int = 0) -> None:
        self.calls.append("flush_and_unmount")
        if self.flush_fails_with:
            raise self.flush_fails_with

    def unassign(self) -> None:
        self.calls.append("unassign")

    def secret(self, name: str) -> str:
        if isinstance(found := self.secrets.get(name, SecretNotFoundError(name)), Exception):
            raise found
        return found

    def modules(self) -> dict[str, types.ModuleType]:
        """google, google.colab and its parts, for sys.modules."""
        names = ("google", "google.colab", "google.colab.drive", "google.colab.runtime", "google.colab._shell",
                 "google.colab.userdata", "google.colab.files", "google.colab.data_table")
        found = {name: types.ModuleType(name) for name in names}
        for name, module in found.items():
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(found[parent], child, module)
        found["google.colab.drive"].mount = self.mount
        found["google.colab.drive"].flush_and_unmount = self.flush_and_unmount
        found["google.colab.userdata"].get = self.secret
        found["google.colab.files"].upload = lambda: self.uploads
        found["google.colab.files"].download = lambda path: self.calls.append(f"download {Path(path).name}")
        found["google.colab.data_table"].DataTable = lambda frame, **options: frame
        found["google.colab.runtime"].unassign = self.unassign
        return found

    def install(self, monkeypatch, *, in_notebook: bool = True, hosted: bool = True) -> "FakeColab":
        """Makes this process look like Colab, as a notebook cell or as a terminal of the same machine."""
        for name, module in self.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        if hosted:
            self.hostname_file.write_text("colab\n", encoding="utf-8")
        monkeypatch.setattr("vnq_colab.colab.HOSTNAME_FILE", self.hostname_file)
        ipython = types.ModuleType("IPython")
        shell = type("Shell", (), {"__module__": "google.colab._shell"})()
        ipython.get_ipython = lambda: shell if in_notebook else None
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.delenv("VNQ_HOME", raising=False)
        return self


STARTUP = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from fake_colab import FakeColab  # not of `tests`: IPython 7 has a package of that name on its path
fake_colab = FakeColab(Path({folder!r}))
sys.modules.update(fake_colab.modules())
shell = get_ipython()
shell.__class__ = type("Shell", (type(shell),), {{"__module__": "google.colab._shell"}})
import vnq_colab.colab as door
door.open_workspace.__kwdefaults__["mount_at"] = str(fake_colab.mount_at)
door.machine_age_hours = lambda: 1.0  # a Colab machine is young; the one that runs the tests may be at its plan's end
"""


def write_startup(ipython_folder: Path, folder: Path) -> None:
    """Makes every kernel with this IPython folder ($IPYTHONDIR) look like Colab, with its Drive below `folder`."""
    startup = ipython_folder / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    text = STARTUP.format(here=str(Path(__file__).parent), folder=str(folder))
    (startup / "00_colab.py").write_text(text, encoding="utf-8")
