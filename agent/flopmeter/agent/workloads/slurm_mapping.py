"""Looks at the job-mapping directory: whom each GPU was given to, and what our prolog wrote of the jobs.

Nothing here follows a link, waits on a pipe, reads without a bound, or believes what somebody else than root or the
directory's owner wrote. What is wrong with one file is said, and the others count all the same. Files that have not
changed are not read again.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from .slurm_facts import MAX_FACTS_BYTES, JobFacts, parse_facts
from .slurm_holders import GpuNames, is_index, is_uuid, parse_holders

#: What our prolog knows of jobs stands in there, a file a job; dcgm-exporter passes over directories.
FACTS_DIRECTORY = ".flopmeter"
MAX_FILES = 4_096  # looked at in one directory
MAX_FILE_BYTES = 16 << 10
MAX_TROUBLES = 16  # said of one look
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Look:
    """What the directory said at one time."""

    holders: Mapping[str, tuple[str, ...]]  # UUID -> job ids; a GPU that is absent was given to nobody
    facts: Mapping[str, JobFacts]  # by job id
    troubles: tuple[str, ...] = ()  # what was not believed, and why


class MappingDirectory:
    """One directory, looked at again and again, by one thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._read: dict[str, tuple[tuple[int, ...], bytes]] = {}  # file -> its state, its bytes

    def look(self, names: GpuNames) -> Look:
        """Raises OSError where the directory cannot be read, or must not be believed."""
        round_ = _Round(self._read)
        by_index: dict[str, tuple[str, ...]] = {}
        by_uuid: dict[str, tuple[str, ...]] = {}
        with _opened(self.path) as top:
            for name in round_.listed(top):
                entity = _entity(name, names, round_)
                raw = round_.read(top, name, MAX_FILE_BYTES) if entity else None
                if raw is None:
                    continue
                jobs, wrong = parse_holders(raw)
                if wrong:
                    round_.trouble(f"{name}: {wrong}")
                (by_index if is_index(name) else by_uuid)[entity] = jobs
            facts = _facts(top, round_)
        self._read = round_.kept
        held = {entity: jobs for entity, jobs in (by_index | by_uuid).items() if jobs}
        return Look(held, facts, tuple(round_.troubles))


def _entity(name: str, names: GpuNames, round_: "_Round") -> str:
    """The GPU that a file is of; "" where it is of none, or of which is not known."""
    if is_index(name):
        if names.no_index:
            round_.trouble(f"files named by index are passed over: {names.no_index}")
        elif name not in names.by_index:
            round_.trouble(f"{name}: no GPU of this node has that index")
        return names.by_index.get(name, "")
    if not is_uuid(name):
        return ""  # a writer's temporary file, or nothing of ours
    if name not in names.uuids:
        round_.trouble(f"{name}: no GPU that is metered here")
        return ""
    return name


def _facts(top: int, round_: "_Round") -> dict[str, JobFacts]:
    found: dict[str, JobFacts] = {}
    try:
        with _opened(FACTS_DIRECTORY, top) as inner:
            for job in round_.listed(inner):
                if not (job.isascii() and job.isdigit()):
                    continue
                raw = round_.read(inner, job, MAX_FACTS_BYTES, f"{FACTS_DIRECTORY}/")
                if raw is None:
                    continue
                try:
                    found[job] = parse_facts(raw, job)
                except ValueError as e:
                    round_.trouble(f"{FACTS_DIRECTORY}/{job}: {e}")
    except FileNotFoundError:
        pass  # another's prolog
    except OSError as e:
        round_.trouble(f"{FACTS_DIRECTORY}: {e.strerror or e}")
    return found


@dataclass(slots=True)
class _Round:
    """One look: what was read before, what is kept of it, what was wrong."""

    before: dict[str, tuple[tuple[int, ...], bytes]]
    kept: dict[str, tuple[tuple[int, ...], bytes]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    def trouble(self, what: str) -> None:
        if len(self.troubles) < MAX_TROUBLES and what not in self.troubles:
            self.troubles.append(what)

    def listed(self, directory: int) -> Iterator[str]:
        with os.scandir(directory) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_FILES:
                    self.trouble(f"more than {MAX_FILES} files in a directory: the rest is not read")
                    return
                yield entry.name

    def read(self, directory: int, name: str, limit: int, where: str = "") -> bytes | None:
        """The file's bytes; None, and said, where it is not to be believed. None, unsaid, where it is just gone."""
        known = self.before.get(where + name)
        try:
            if known is None or known[0] != _state(os.stat(name, dir_fd=directory, follow_symlinks=False)):
                known = self._read_anew(directory, name, limit)
        except FileNotFoundError:
            return None
        except OSError as e:
            link = e.errno == errno.ELOOP
            self.trouble(f"{where}{name}: {'a link, which is not followed' if link else e.strerror or e}")
            return None
        self.kept[where + name] = known
        return known[1]

    @staticmethod
    def _read_anew(directory: int, name: str, limit: int) -> tuple[tuple[int, ...], bytes]:
        fd = os.open(name, _FILE, dir_fd=directory)
        try:
            told = os.fstat(fd)
            wrong = _unbelievable(told, directory, limit)
            if wrong:
                raise OSError(errno.EPERM, wrong)
            return _state(told), os.read(fd, limit)
        finally:
            os.close(fd)


def _state(told: os.stat_result) -> tuple[int, ...]:
    """While this stays, so do the file's bytes, its owner and its mode."""
    return told.st_ino, told.st_mtime_ns, told.st_ctime_ns, told.st_size


def _unbelievable(told: os.stat_result, directory: int, limit: int) -> str:
    if not stat.S_ISREG(told.st_mode):
        return "not a file"
    if told.st_uid not in (0, os.fstat(directory).st_uid):
        return f"written by user {told.st_uid}, neither root nor the directory's owner"
    if told.st_mode & stat.S_IWOTH:
        return "anybody may write to it"
    if told.st_size > limit:
        return f"{told.st_size} bytes, expected at most {limit}"
    return ""


@contextmanager
def _opened(path: str, above: int | None = None) -> Iterator[int]:
    """The directory, if nobody but its owner (and group) can put a file there."""
    fd = os.open(path, _DIRECTORY if above is None else _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    try:
        told = os.fstat(fd)
        if told.st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "anybody may write to it, so that it is not believed", path)
        if above is not None and told.st_uid not in (0, os.fstat(above).st_uid):
            raise PermissionError(errno.EPERM, f"belongs to user {told.st_uid}", path)
        yield fd
    finally:
        os.close(fd)
