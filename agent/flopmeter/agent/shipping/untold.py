"""Remarks that no durable record tells of yet, a file each, so that a crash forgets none."""

import logging
from collections.abc import Iterable
from pathlib import Path

from flopmeter.agent.files import sync_directory, write_file
from flopmeter.agent.metering.remark import Remark, load_remark

log = logging.getLogger(__name__)


class Untold:
    """The directory of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def keep(self, remark: Remark) -> None:
        """Keep a remark until `told`. Durable on return."""
        write_file(self.directory / remark.name, remark.dump())

    def all(self) -> list[Remark]:
        """Every remark that is kept, by name."""
        found = []
        for path in sorted(self.directory.iterdir()):
            remark = load_remark(path.name, path.read_bytes())
            if remark is None:
                log.warning("spool: %s is not a remark; left where it is", path)
            else:
                found.append(remark)
        return found

    def told(self, names: Iterable[str]) -> None:
        """These are in durable records: forget them."""
        try:
            for name in names:
                (self.directory / name).unlink(missing_ok=True)
            sync_directory(self.directory)
        except OSError as e:  # at worst it is told once more after a restart
            log.warning("spool: cannot forget what was told: %s", e.strerror or e)
