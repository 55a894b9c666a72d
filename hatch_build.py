"""Puts the manual pages of all commands into the wheel, where pip installs them: share/man/man1 of the environment.

Made of what the commands' `--help` says, which needs click and nothing else. Dated by SOURCE_DATE_EPOCH where that is
set, and else not at all, so that two builds of one source are the same.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOTS = ("agent", "collector", "protos")


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]
    """One folder of pages, for as long as the build takes."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":  # an editable one installs nothing but a path
            return
        sys.path[:0] = [str(Path(self.root, name)) for name in ROOTS]
        from flopmeter.cli.main import flopmeter
        from flopmeter.cli.manual import pages

        made = os.environ.get("SOURCE_DATE_EPOCH")
        day = time.strftime("%Y-%m-%d", time.gmtime(int(made))) if made else ""
        self._folder = tempfile.TemporaryDirectory(prefix="flopmeter-man-")
        for name, text in pages(flopmeter, day):
            Path(self._folder.name, f"{name}.1").write_text(text, encoding="utf-8")
        build_data["shared_data"][self._folder.name] = "share/man/man1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version == "standard":
            self._folder.cleanup()
