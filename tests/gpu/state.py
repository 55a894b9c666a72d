"""Results on disk: one file, replaced whole after every experiment, so that a rerun goes on where this one ended."""

import io
import json
import math
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "flopmeter-gpu-validation/1"
#: An experiment that was begun so often without coming to an end is left out.
MOST_ATTEMPTS = 2


class StateError(Exception):
    """The folder holds something else, or results of another machine."""


@dataclass(slots=True)
class State:
    """`results` by experiment id; `attempts` counts beginnings, so that what kills the program is found out.

    `superseded`: results that somebody had run again, so that nobody can keep the better one of two in silence.
    """

    folder: Path
    machine: dict[str, Any] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    superseded: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)  # of an experiment that is under way: which part is
    bundle: Path | None = None
    _lost: str = ""  # the part in which the attempt before came to its end

    @property
    def file(self) -> Path:
        return self.folder / "state.json"

    @classmethod
    def load(cls, folder: Path, bundle: Path | None = None) -> "State":
        """What is there; an empty folder is filled from the bundle if there is one. Raises StateError."""
        state = cls(folder, bundle=bundle)
        if not state.file.exists() and bundle is not None and bundle.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(bundle) as tar:
                for member in tar:
                    # Plain files inside the folder, no more: before 3.11.4 extractall has no filter.
                    body = tar.extractfile(member) if member.isfile() else None
                    target = (folder / member.name).resolve()
                    if body is not None and target.is_relative_to(folder.resolve()):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(body.read())
        if not state.file.exists():
            return state
        try:
            data = json.loads(state.file.read_text())
        except ValueError as e:
            raise StateError(f"{state.file}: expected JSON, got {e}") from e
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise StateError(f"{state.file}: expected format {FORMAT}; name another --out")
        state.machine, state.results, state.attempts = data["machine"], data["results"], data["attempts"]
        state.superseded = data.get("superseded", [])
        state.parts = data.get("parts", {})
        return state

    def same_machine(self, machine: dict[str, Any]) -> None:
        """Raises StateError if the results so far are of another GPU, driver branch, or of the simulation.

        Releases of one branch may differ from call to call on machines that are lent; each result tells its own.
        """
        for key in ("gpu", "driver", "simulated"):
            if self.machine and _kind(self.machine.get(key)) != _kind(machine.get(key)):
                raise StateError(
                    f"{self.file}: holds results of {key} {self.machine.get(key)!r}, this is "
                    f"{machine.get(key)!r}; name another --out"
                )
        self.machine = self.machine or machine

    def again(self, keys: Sequence[str]) -> None:
        """Let these be run again; what they gave is kept as superseded."""
        for key in keys:
            self.attempts.pop(key, None)
            self.parts.pop(key, None)
            if (result := self.results.pop(key, None)) is not None:
                self.superseded.append({"key": key, **result})
        self.save()

    def begin(self, key: str) -> bool:
        """Note that `key` is begun; False if it was begun too often already without an end."""
        if self.attempts.get(key, 0) >= MOST_ATTEMPTS:
            return False
        self.attempts[key] = self.attempts.get(key, 0) + 1
        self._lost = self.parts.pop(key, "")
        self.save()
        return True

    def begin_part(self, key: str, part: str) -> bool:
        """Note that `part` is begun; False if the attempt before ended in it: the other parts are worth more."""
        if part == self._lost:
            return False
        self.parts[key] = part
        self.save()
        return True

    def finish(self, key: str, result: dict[str, Any], *, again: bool = False) -> None:
        """`again`: it may be begun once more, without the part it ended in."""
        self.results[key] = result
        if not again:
            self.parts.pop(key, None)
        self.save()

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        data = {
            "format": FORMAT,
            "machine": self.machine,
            "results": self.results,
            "attempts": self.attempts,
            "superseded": self.superseded,
            "parts": self.parts,
        }
        _replace(self.file, json.dumps(strict(data), indent=1, allow_nan=False).encode())
        if self.bundle is not None:
            _replace(self.bundle, self._packed())

    def _packed(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for path in sorted(self.folder.rglob("*")):
                if path.is_file() and not path.name.endswith(".part"):
                    tar.add(path, arcname=str(path.relative_to(self.folder)))
        return buffer.getvalue()


def strict(value: Any) -> Any:
    """For JSON, which has no NaN and no infinity: null, "there is no such number"."""
    if isinstance(value, dict):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kind(value: object) -> object:
    """A driver's branch ("580" of "580.159.04"); anything else whole."""
    text = str(value)
    return text.partition(".")[0] if text[:1].isdigit() else value


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all, whatever kills this process; a power cut may cost the last experiment."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
