"""C2SP at 5ba5ee8: signed-note and tlog-checkpoint 1.0, tlog-cosignature, tlog-proof@v1, tlog-policy. Strictly:
nothing is stripped, no CR, one way to write each number and each base64.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from flopmeter.evidence.errors import EvidenceError, require
from flopmeter.evidence.merkle import SIZE_LIMIT

STEP = "checkpoint"
NOTE_LIMIT = 1 << 18  # bytes: more than the 16 signatures that signed-note 1.0 says to accept
LOG, COSIGNED, COSIGNED_MLDSA = 1, 4, 6  # signature types: Ed25519, and cosignatures: Ed25519, ML-DSA-44
_KEY_BYTES = {LOG: 32, COSIGNED: 32, COSIGNED_MLDSA: 1312}
_LINE = r"([^\0-\x1f]+)\n"
_NOTE = rf"({_LINE}{_LINE}{_LINE}(?:[^\0-\x1f]+\n)*)\n((?:— [^\s+\0-\x1f]+ [!-~]+\n)+)"
_PROOF = rf"c2sp\.org/tlog-proof@v1\n(?:extra {_LINE})?index {_LINE}((?:[!-~]+\n){{0,64}})\n(.*)"


class Key(NamedTuple):  # a verifier key: name and id stand in its signature lines, kind is the signature type
    name: str
    id: bytes
    kind: int
    public: bytes


class Checkpoint(NamedTuple):  # as read: text is what the lines (key name, key id, signature) claim to sign
    origin: str
    size: int
    root: bytes
    text: bytes
    lines: tuple[tuple[str, bytes, bytes], ...]


class Policy(NamedTuple):  # groups: how many of which members, by name; a quorum names a witness or a group
    logs: tuple[Key, ...]
    witnesses: Mapping[str, tuple[Key, str | None]]  # key and URL by name
    groups: Mapping[str, tuple[int, tuple[str, ...]]]
    quorum: str

    def check(self, checkpoint: Checkpoint) -> dict[Key, int]:
        """When each witness key cosigned (Unix s), once a log has signed and the quorum has cosigned."""
        found = signers(checkpoint, [*self.logs, *(key for key, _ in self.witnesses.values())])
        signed = any(log in found and log.name == checkpoint.origin for log in self.logs)
        require(signed, STEP, f"no log of the policy signed this checkpoint of {checkpoint.origin[:99]!r}")
        held = {name for name, (key, _) in self.witnesses.items() if key in found}
        for name, (least, members) in self.groups.items():  # each names only what stands before it
            held |= {name} if sum(member in held for member in members) >= least else set()
        reached = self.quorum in {"none", *held}
        require(reached, STEP, f"the quorum {self.quorum[:99]!r} is not reached by {sorted(held)[:32]}")
        return {key: seconds for key, seconds in found.items() if seconds is not None}


def parse_key(vkey: str) -> Key:
    """`<name>+<id, 8 hex>+<base64 of type ‖ public key>`."""
    name, key_id, encoded = _match(r"([^\s+]+)\+([0-9a-f]{8})\+(.+)", vkey, "a key").groups()
    key = _base64(encoded)
    fits = name.isprintable() and _KEY_BYTES.get(key[0]) == len(key) - 1
    require(fits, STEP, f"the key of {name[:99]!r} is of type {key[0]} or of a length that is not known here")
    own = sha256(name.encode() + b"\n" + key).hexdigest()[:8]
    require(own == key_id, STEP, f"the key of {name[:99]!r} has the id {own}, not {key_id}")
    return Key(name, bytes.fromhex(key_id), key[0], key[1:])


def parse_checkpoint(note: bytes) -> Checkpoint:
    text, origin, size, root, lines = _match(_NOTE, note, "a checkpoint").groups()
    named = [(line.split(" ")[1], _base64(line.split(" ")[2])) for line in lines[:-1].split("\n")]
    require(all(len(signature) > 4 for _, signature in named), STEP, "a signature line has only a key id")
    signatures = tuple((name, signature[:4], signature[4:]) for name, signature in named)
    return Checkpoint(origin, _decimal(size), _base64(root, 32), text.encode(), signatures)


def signers(checkpoint: Checkpoint, keys: Iterable[Key]) -> dict[Key, int | None]:
    """The keys that signed, with the time of a cosignature (Unix s) or None; lines of others are skipped.
    Refused: none of them signed, one signed falsely or twice, two cannot be told apart.
    """
    known: dict[tuple[str, bytes], Key] = {}
    for key in keys:
        same = known.setdefault((key.name, key.id), key) == key
        require(same, STEP, f"two keys of {key.name!r} have the id {key.id.hex()}")
    found: dict[Key, int | None] = {}
    for name, key_id, signature in checkpoint.lines:
        if signer := known.get((name, key_id)):
            require(signer not in found, STEP, f"{name!r} signed twice with one key")
            found[signer] = _verified(checkpoint, signer, signature)
    require(found, STEP, "none of the expected keys signed the checkpoint")
    return found


def _verified(checkpoint: Checkpoint, key: Key, signature: bytes) -> int | None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # not paid by importing this
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    message, seconds, stamp = checkpoint.text, None, signature[:8]
    if key.kind != LOG:
        seconds, signature = int.from_bytes(stamp, "big"), signature[8:]
        require(0 < seconds < SIZE_LIMIT, STEP, f"{key.name!r} cosigned at no time")
        message = b"cosignature/v1\ntime %d\n" % seconds + message
    try:
        if key.kind == COSIGNED_MLDSA:
            from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

            name, origin = (
                bytes([len(one)]) + one for one in (key.name.encode(), checkpoint.origin.encode())
            )
            message = (
                b"subtree/v1\n\0" + name + stamp + origin + bytes(8) + checkpoint.size.to_bytes(8, "big")
            )
            MLDSA44PublicKey.from_public_bytes(key.public).verify(signature, message + checkpoint.root)
        else:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError):  # ValueError: no such point, a name of more than 255 bytes
        raise EvidenceError(STEP, f"the signature of {key.name!r} is not its own") from None
    except (ImportError, UnsupportedAlgorithm):
        raise EvidenceError(STEP, f"ML-DSA-44 of {key.name!r}: this cryptography cannot check it") from None
    return seconds


def parse_proof(data: bytes) -> tuple[int, tuple[bytes, ...], bytes | None, bytes]:
    """Index, hashes, `extra` (never signed) and the checkpoint's note, which is still to be read."""
    extra, index, hashes, checkpoint = _match(_PROOF, data, "a tlog-proof").groups()
    proof = tuple(_base64(one, 32) for one in hashes.split("\n")[:-1])
    return _decimal(index), proof, _base64(extra) if extra else None, checkpoint.encode()


def parse_policy(data: bytes) -> Policy:
    """Beside the rules of tlog-policy: names are shown to people, and so must be printable; two keys of one
    key name are one witness, and so may be members of one group only, one that asks for one member.
    """
    text = data[: NOTE_LIMIT + 1].decode("utf-8", "surrogateescape")  # comments may be in any encoding
    plain = len(data) <= NOTE_LIMIT and re.fullmatch(r"[\t\n -~\x80-\U0010ffff]*\n", text)
    require(plain, STEP, "the policy is too long, has control characters, or lacks its last newline")
    logs: list[Key] = []
    witnesses: dict[str, tuple[Key, str | None]] = {}
    groups: dict[str, tuple[int, tuple[str, ...]]] = {}
    known, group_of, quorum = {"none"}, {"none": ""}, []  # group by member, and by key name behind a space
    for line in text.split("\n"):
        match words := re.split("[ \t]+", line.strip(" \t")):
            case [word, *_] if not word or word.startswith("#"):
                continue
            case _ if not all(word.isprintable() for word in words):
                raise EvidenceError(STEP, f"a name or URL that cannot be shown as it is: {line[:99]!r}")
            case ["log", vkey] | ["log", vkey, _]:
                logs.append(parse_key(vkey))
            case ["witness", name, vkey, *url] if name not in known and len(url) < 2:
                witnesses[name] = parse_key(vkey), url[0] if url else None
                known.add(name)
            case ["group", name, word, _, *_] if name not in known and known.issuperset(members := words[3:]):
                least = 1 if word == "any" else len(members) if word == "all" else _decimal(word)
                require(1 <= least <= len(members), STEP, f"{line[:99]!r}: {least} of {len(members)}")
                tags = [*members, *(f" {witnesses[one][0].name}" for one in members if one in witnesses)]
                once = len({*members}) == len(members) and (least == 1 or len({*tags}) == len(tags))
                once = once and all(group_of.setdefault(tag, name) == name for tag in tags)
                require(once, STEP, f"{line[:99]!r}: a member or a witness that counts already")
                groups[name] = least, tuple(members)
                known.add(name)
            case ["quorum", name] if name in known:
                quorum.append(name)
            case _:
                raise EvidenceError(STEP, f"not a policy's line, or a name unknown or taken: {line[:99]!r}")
    witnessing = [key for key, _ in witnesses.values()]
    kinds = all(log.kind == LOG for log in logs) and all(key.kind != LOG for key in witnessing)
    require(kinds, STEP, "a log's key is of type 1 in a policy, a witness's of type 4 or 6")
    keys = [key.public for key in [*logs, *witnessing]]
    require(len(quorum) == 1 and len({*keys}) == len(keys), STEP, "a policy has one quorum, and no key twice")
    return Policy(tuple(logs), witnesses, groups, quorum[0])


def _match(pattern: str, data: bytes | str, what: str) -> re.Match[str]:
    short = data[: NOTE_LIMIT + 1]  # what is too long is not even decoded
    try:
        match = re.fullmatch(pattern, short if isinstance(short, str) else short.decode(), re.DOTALL)
    except UnicodeDecodeError:
        match = None
    if match is None or len(data) > NOTE_LIMIT:
        raise EvidenceError(STEP, f"not {what} as C2SP writes it, or too long: {data[:99]!r}")
    return match


def _base64(text: str, length: int | None = None) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = b""
    same = b64encode(data).decode() == text and len(data) == (length or len(data))
    require(same, STEP, f"not the standard base64 of {length or 'some'} bytes: {text[:99]!r}")
    return data


def _decimal(text: str) -> int:
    number = int(text) if re.fullmatch("0|[1-9][0-9]{0,18}", text) else SIZE_LIMIT
    require(number < SIZE_LIMIT, STEP, f"not a decimal number below 2^63: {text[:99]!r}")
    return number
