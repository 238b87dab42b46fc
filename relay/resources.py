"""Where the files are that come with the package and are not Python."""

from __future__ import annotations

from pathlib import Path


def templates_folder() -> Path:
    """The folder `templates`: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"
