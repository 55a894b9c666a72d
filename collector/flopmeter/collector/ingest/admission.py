"""Which keys may speak: an operator's list, or trust on first use. Enrolment by token: flopmeter.collector.access."""

from dataclasses import dataclass, field
from pathlib import Path

from flopmeter.collector.errors import SettingsError

BY_FILE = "file"
BY_FIRST_USE = "first-use"
BY_TOKEN = "token"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Admission:
    """Admits `keys` (public key -> node, for people), and any other key if `admit_new`."""

    keys: dict[bytes, str] = field(default_factory=dict)
    admit_new: bool = False

    def admit(self, public_key: bytes) -> str:
        """How a key not yet in the books is admitted: "file", "first-use", or "" = it is not."""
        if public_key in self.keys:
            return BY_FILE
        return BY_FIRST_USE if self.admit_new else ""


def read_admit_file(path: Path) -> dict[bytes, str]:
    """Lines of a 64-digit hex public key and a node name; # begins a comment. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise SettingsError(f"--admit {path}: cannot read: {e}", "name a readable text file") from e
    keys: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            key = bytes.fromhex(words[0])
        except ValueError:
            key = b""
        if len(key) != 32 or len(words) > 2:
            raise SettingsError(
                f"--admit {path}, line {number}: expected 64 hex digits and a node name, got {line.strip()!r}",
                "`flopmeter agent run` prints its public key at start",
            )
        keys[key] = words[1] if len(words) == 2 else ""
    return keys
