"""Where the books are, for every command that writes or reads them."""

from pathlib import Path

#: The collector's state directory, as the units make it.
DEFAULT_STORE = "/var/lib/flopmeter/collector"
#: What a store is called when a directory is named instead of a file.
STORE_NAME = "books.sqlite"


def store_file(path: Path) -> Path:
    """The store that `path` names: that file, or the one in that directory.

    What is not there yet is taken for a directory if its name has no ending: `books` is one, `books.db` is not.
    """
    return path / STORE_NAME if path.is_dir() or not (path.suffix or path.exists()) else path
