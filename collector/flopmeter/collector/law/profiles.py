"""Counting profiles: what a law counts to a model's compute, as dated, versioned data files (docs/regimes.md).

One file is one column of the counting matrix (reference/regulations.md section 3): a ruling for each purpose that a
span of a run can have, and for each way in which a run stands on another. Where the text says nothing the ruling is
`silent`: it counts, and whoever shows the figure says so (section 3, consequence).
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from flopmeter.collector.errors import RegimeError
from flopmeter.collector.registry.entries import Purpose, Relation

from .toml_keys import Keys, whole

SCHEMA = "flopmeter-counting/1"
#: In a regime's `counting`: no profile. Every operation of the one run, and of no other.
EXECUTED = "executed"


class Answer(StrEnum):
    """What a text says of one activity."""

    COUNTS = "counts"
    EXCLUDED = "excluded"  # need not be counted
    SILENT = "silent"  # counts, and is said

    @property
    def strength(self) -> int:
        """Counts over silent over excluded."""
        return (Answer.EXCLUDED, Answer.SILENT, Answer.COUNTS).index(self)


@dataclass(frozen=True, slots=True)
class Ruling:
    """One cell of the matrix. `words`: the text's own in quotation marks, or what it comes to."""

    answer: Answer
    words: str
    source: str
    inferred: bool  # our reading, not the text's own statement: marked (R) where it is shown

    @property
    def counted(self) -> bool:
        """Whether it is in the total: what a text is silent on is."""
        return self.answer is not Answer.EXCLUDED

    @property
    def strength(self) -> int:
        """Of several rulings on one thing the strongest holds."""
        return self.answer.strength


#: What no tag says the purpose of (regulations.md section 13, item 5).
UNTAGGED = Ruling(Answer.COUNTS, "untagged: counts until a tag says otherwise", "flopmeter", inferred=False)


@dataclass(frozen=True, slots=True)
class Profile:
    """One column of the matrix. `version` and `digest` say which text of the file."""

    id: str
    title: str
    source: str
    purposes: Mapping[Purpose, Ruling] = field(hash=False)
    relations: Mapping[Relation, Ruling] = field(hash=False)
    open_questions: tuple[str, ...]
    version: str
    digest: str  # SHA-256 of the file's bytes, hex
    text: str = field(default="", repr=False, compare=False)  # the file

    def of(self, purpose: Purpose | None) -> Ruling:
        """None: untagged."""
        return UNTAGGED if purpose is None else self.purposes[purpose]


@functools.cache
def shipped() -> Mapping[str, Profile]:
    """The profiles that come with this version, by id."""
    return load(resources.files("flopmeter.collector").joinpath("profiles"))


def profile_of(counting: str) -> Profile | None:
    """The shipped profile that a regime's `counting` names; None: `executed`."""
    return None if counting == EXECUTED else shipped()[counting]


def load(directory: Traversable | Path) -> Mapping[str, Profile]:
    """Every `*.toml` of a directory. Raises RegimeError naming file and key."""
    try:
        files = sorted((f for f in directory.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
        texts = [(f.name, f.read_bytes()) for f in files]
    except OSError as e:
        raise RegimeError(
            f"counting profiles: cannot read {directory}: {e}",
            "name a directory that holds profiles (*.toml)",
        ) from e
    found: dict[str, Profile] = {}
    for name, raw in texts:
        profile = parse(name, raw)
        if profile.id in found:
            raise RegimeError(
                f"{name}: key id: expected an id of its own, got {profile.id!r}, which another file has",
                "give the profile another id",
            )
        found[profile.id] = profile
    return found


def parse(name: str, raw: bytes) -> Profile:
    """One profile. `name` is what messages call it. Raises RegimeError with every fault."""
    return whole(name, raw, lambda keys: _profile(keys, raw))


def _profile(keys: Keys, raw: bytes) -> Profile:
    keys.one_of("schema", (SCHEMA,))
    profile_id = keys.id()
    if profile_id == EXECUTED:
        keys.fault("id", "another id than 'executed', which means that no profile applies", profile_id)
    title, source, version = keys.text("title"), keys.text("source"), keys.text("version")
    questions = keys.texts("open_questions")
    purposes, relations = keys.table("purpose"), keys.table("relation")
    profile = Profile(
        id=profile_id,
        title=title,
        source=source,
        purposes={p: _ruling(purposes, p.value) for p in Purpose},
        relations={r: _ruling(relations, r.value) for r in Relation},
        open_questions=questions,
        version=version,
        digest=hashlib.sha256(raw).hexdigest(),
        text=raw.decode(),
    )
    for table in (purposes, relations, keys):
        table.none_left()
    return profile


def _ruling(tables: Keys, name: str) -> Ruling:
    keys = tables.table(name)
    ruling = Ruling(
        answer=Answer(keys.one_of("answer", tuple(a.value for a in Answer))),
        words=keys.text("words"),
        source=keys.text("source"),
        inferred=keys.yes("inferred"),
    )
    keys.none_left()
    return ruling
