"""What an auditor is promised of flopmeter.evidence: short enough to be read, and nothing in it that they must trust."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flopmeter.evidence

KIT = Path(flopmeter.evidence.__file__).parent
FILES = sorted(KIT.glob("*.py"))
#: reference/attestation.md 2.3: read in an hour. Physical lines, blank ones and docstrings too.
MOST_LINES = 600
#: Beside the import wall: no clock, no randomness, no socket, no process, no file of its own choosing.
MODULES = {
    "base64", "bisect", "collections", "hashlib", "itertools", "json", "operator", "re", "typing",
}  # fmt: skip
NAMES = {"open", "exec", "eval", "compile", "__import__", "input", "print", "globals", "vars", "breakpoint"}


def imports(file):
    """(module, whether at the top level) of every import statement, wherever it stands."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        for name in [alias.name for alias in node.names] if isinstance(node, ast.Import) else []:
            yield name, node in tree.body
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            yield node.module or "", node in tree.body


def test_the_kit_is_short():
    lines = {file.name: len(file.read_text().splitlines()) for file in FILES}
    assert sum(lines.values()) < MOST_LINES, lines
    assert not [path.name for path in KIT.rglob("*.py") if path.parent != KIT]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_imports_only_plain_modules_and_cryptography(file):
    for module, at_the_top in imports(file):
        root = module.split(".")[0]
        assert root in MODULES | {"cryptography"} or module.startswith("flopmeter.evidence"), module
        if root == "cryptography" and "TYPE_CHECKING" not in file.read_text():
            assert not at_the_top, (
                f"{module}: agents import these modules, and pay for it only where they verify"
            )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_opens_and_runs_nothing(file):
    used = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
    assert not used & NAMES


def test_it_runs_without_clock_socket_and_file():
    """A receipt is checked from bytes to quorum while the interpreter refuses every open, socket and process."""
    code = """
import sys
from flopmeter.evidence import disclosure, merkle, note, sumtree
from evidence_reference import Signer, inclusion_proof, signed_checkpoint, tlog_proof
log, witness = Signer("lab.example/log", 1), Signer("w.example", 4)
leaves = [merkle.leaf_hash(b"%d" % n) for n in range(5)]
receipt = tlog_proof(3, inclusion_proof(3, leaves), signed_checkpoint(log.name, leaves, log, witness))
policy = f"log {log.vkey}\\nwitness W {witness.vkey}\\nquorum W\\n".encode()
import cryptography.hazmat.primitives.asymmetric.ed25519
import cryptography.exceptions
seen = []
def watch(event, args):
    if event in ("open", "socket.__new__", "subprocess.Popen", "os.system", "time.sleep") or event.startswith("os."):
        seen.append(event)
sys.addaudithook(watch)
import time
time.time = time.time_ns = time.monotonic = time.monotonic_ns = lambda: 1 / 0
index, hashes, extra, checkpoint = note.parse_proof(receipt)
head = note.parse_checkpoint(checkpoint)
assert len(note.parse_policy(policy).check(head)) == 1
merkle.verify_inclusion(index, head.size, leaves[3], hashes, head.root)
assert seen == [], seen
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
