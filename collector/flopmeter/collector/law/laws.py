"""All law files that hold together: the shipped ones, and what a site adds and replaces.

One directory holds a site's regimes and its counting profiles; the `schema` of each file says what it is. Everything
is read before anything is used, and every fault of every file is told at once.
"""

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flopmeter.collector.errors import Fault, RegimeError

from . import profiles
from .profiles import Profile
from .regimes import MANDATORY, RUN, Regime, every_shipped, in_order, parse
from .toml_keys import MAX_BYTES
from .toml_lines import places

if TYPE_CHECKING:
    from .signing import PublicKey

_T = TypeVar("_T")
#: Files of a site, at most: what is meant to be a directory of law files and is not is not read for hours.
MAX_FILES = 1_000
SUFFIX = ".toml"


@dataclass(frozen=True, slots=True)
class LawFile:
    """One file of a site."""

    name: str
    raw: bytes

    @property
    def digest(self) -> str:
        """SHA-256, hex."""
        return hashlib.sha256(self.raw).hexdigest()


@dataclass(frozen=True, slots=True)
class Laws:
    """What is judged by, and what is there to be looked up."""

    regimes: tuple[Regime, ...]  # in order; those that were replaced are not among them
    profiles: Mapping[str, Profile]  # the site's own, by id
    replaced: Mapping[str, Regime]  # shipped regimes, by id, that a site's stands in the place of
    files: tuple[LawFile, ...]  # the site's, by name

    @property
    def binding(self) -> tuple[Regime, ...]:
        """What anything is judged by: the rest is proposed, historical, or has no line."""
        return tuple(r for r in self.regimes if r.may_bind)


def read_laws(directory: Path | None, key: "PublicKey | None" = None) -> Laws:
    """The shipped files and those of `directory`. Raises RegimeError with every fault of every file.

    `key`: the directory's manifest must be signed by it. The shipped files are as trusted as the program they came
    with.
    """
    if directory is None:
        return of_files(())
    files = read_files(directory)
    if key is not None:
        from .signing import check_signed  # only by those who ask for signatures

        check_signed(directory, {f.name: f.raw for f in files}, key)
    return of_files(files)


def with_site(directory: Path | None, scope: str = RUN) -> tuple[Regime, ...]:
    """Those of one scope that bind, shipped and of a site. Raises RegimeError."""
    return tuple(r for r in read_laws(directory).binding if r.scope == scope)


def read_files(directory: Path) -> tuple[LawFile, ...]:
    """Every `*.toml` of a directory, by name. Raises RegimeError."""
    try:
        names = sorted(p.name for p in directory.iterdir() if p.name.endswith(SUFFIX))
        if len(names) > MAX_FILES:
            raise RegimeError.of(
                [
                    Fault(
                        str(directory),
                        None,
                        None,
                        "",
                        f"at most {MAX_FILES} files",
                        f"{len(names)}",
                        _NAME_ONE,
                    )
                ]
            )
        return tuple(LawFile(name, _read(directory / name)) for name in names)
    except OSError as e:
        raise RegimeError.of(
            [
                Fault(
                    str(directory),
                    None,
                    None,
                    "",
                    "a directory that can be read",
                    str(e.strerror or e),
                    _NAME_ONE,
                )
            ]
        ) from e


_NAME_ONE = "name a directory that holds a site's regime files and counting profiles (*.toml)"


def _read(path: Path) -> bytes:
    with path.open("rb") as f:
        return f.read(MAX_BYTES + 1)  # what is longer is refused for its length


def of_files(files: Iterable[LawFile]) -> Laws:
    """The shipped files with `files` beside them, or in the place of some. Raises RegimeError."""
    files = tuple(files)
    faults: list[Fault] = []
    counting = {f.name for f in files if _schema(f.raw) == profiles.SCHEMA}
    own: dict[str, Profile] = {}
    for f in files:
        if f.name in counting:
            profile = _made(partial(profiles.parse, f.name, f.raw), faults)
            if profile is not None:
                faults += _profile_faults(f, profile, own)
                own[profile.id] = profile
    site: list[Regime] = []
    for f in files:
        if f.name not in counting:
            regime = _made(partial(parse, f.name, f.raw, own), faults)
            if regime is not None:
                faults += _regime_faults(f, regime, site)
                site.append(regime)
    if faults:
        raise RegimeError.of(faults)
    shipped = {r.id: r for r in every_shipped()}
    replaced = {r.replaces: shipped[r.replaces] for r in site if r.replaces}
    kept = [r for r in shipped.values() if r.id not in replaced]
    return Laws(in_order([*kept, *site]), own, replaced, files)


def _made(make: Callable[[], _T], faults: list[Fault]) -> _T | None:
    try:
        return make()
    except RegimeError as e:
        faults += e.faults
        return None


def _schema(raw: bytes) -> object:
    """What the file says that it is; a file that says nothing is read as a regime, and told what it lacks."""
    try:
        return tomllib.loads(raw[:MAX_BYTES].decode()).get("schema")
    except (ValueError, RecursionError):
        return None


def _profile_faults(f: LawFile, profile: Profile, before: Mapping[str, Profile]) -> list[Fault]:
    if profile.id in before:
        return [
            _fault(
                f, "id", "an id of its own", f"{profile.id!r}, which another file has", "give it another id"
            )
        ]
    if profile.id in profiles.shipped():
        todo = "give it another id, and name that in a regime of your own (`counting`, with `replaces`)"
        return [_fault(f, "id", "an id that no shipped profile has", repr(profile.id), todo)]
    return []


def _regime_faults(f: LawFile, regime: Regime, before: Iterable[Regime]) -> list[Fault]:
    found = []
    shipped = {r.id for r in every_shipped()}
    if any(r.id == regime.id for r in before):
        todo = "give one of the two another id"
        found.append(_fault(f, "id", "an id of its own", f"{regime.id!r}, which another file has", todo))
    elif regime.id in shipped and regime.replaces != regime.id:
        todo = f'say replaces = "{regime.id}" if it is to stand in the place of the shipped one, else give it another id'
        found.append(_fault(f, "id", "an id that no shipped regime has", repr(regime.id), todo))
    if regime.replaces and regime.replaces not in shipped:
        import difflib

        near = difflib.get_close_matches(regime.replaces, sorted(shipped), n=1)
        todo = f"did you mean {near[0]!r}?" if near else "`flopmeter regimes list` shows them"
        found.append(_fault(f, "replaces", "the id of a shipped regime", repr(regime.replaces), todo))
    elif regime.replaces and any(r.replaces == regime.replaces for r in before):
        got = f"{regime.replaces!r}, which another file replaces"
        found.append(
            _fault(f, "replaces", "a regime that no other file replaces", got, "keep one of the two")
        )
    return found


def _fault(f: LawFile, key: str, expected: str, got: str, todo: str) -> Fault:
    at = places(f.raw.decode()).get((key,))
    return Fault(f.name, at and at.line, at and at.column, key, expected, got, todo)


def warnings(laws: Laws, today: date) -> list[Fault]:
    """What is no fault and may be a mistake: a site's regime that is over, or that never binds anybody."""
    found = []
    for f in laws.files:
        regime = next((r for r in laws.regimes if r.text == f.raw.decode()), None)
        if (
            regime is not None
            and regime.ends is not None
            and regime.ends <= today
            and regime.status in MANDATORY
        ):
            todo = (
                "it raises nothing any more; take the file away, or give it the dates of the text that holds"
            )
            found.append(_fault(f, "ends", "a day that is still to come", regime.ends.isoformat(), todo))
    return found
