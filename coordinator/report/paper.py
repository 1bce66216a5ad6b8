"""A report page on paper: printed into a PDF by a Chromium that is installed, without a window."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from wire.errors import ConfigError, RuntimeMissing

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
PRINT_S = 120.0


def find_browser() -> str:
    """The path of a browser that can print.

    Raises:
        RuntimeMissing: if there is none.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeMissing(
            "no Chromium or Chrome is installed to print with",
            where="--pdf",
            hint="apt-get install chromium; or open the page in any browser and print it",
        )
    return found


def write_pdf(browser: str, page: Path, target: Path) -> None:
    """Print a page; whoever looks finds the old PDF or the whole new one.

    Args:
        browser: as `find_browser` says.
        page: an HTML file.
        target: the PDF; its folders are made.

    Raises:
        RuntimeMissing: if the browser fails.
        ConfigError: if the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="hidenseek-") as folder:
        draft = Path(folder) / "page.pdf"
        command = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder}/user"]
        # A browser of root's refuses its own sandbox; the page is ours and loads nothing.
        command += ["--no-sandbox", f"--print-to-pdf={draft}", page.resolve().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PRINT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise RuntimeMissing(f"does not print within {PRINT_S:.0f} s", where=browser) from error
        if not draft.exists():
            said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise RuntimeMissing(f"does not print: {said[0][:200]}", where=browser, hint="Print the page yourself")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(draft, target)
        except OSError as error:
            raise ConfigError(f"cannot be written ({error.strerror})", where=str(target)) from error
