"""A timestamp authority (RFC 3161) on loopback: openssl answers, and what it answers can be spoilt."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from receivers import Receiver, Reply


@dataclass
class Tsa:
    """An authority of openssl's: `stamp` is what it answers to a query."""

    folder: Path
    ca: Path

    def stamp(self, query: bytes, *, signer: str = "tsa") -> bytes:
        (self.folder / "q.tsq").write_bytes(query)
        openssl("ts", "-reply", "-config", "ts.cnf", "-section", f"{signer}_section", "-queryfile", "q.tsq",
                "-out", "r.tsr", cwd=self.folder)  # fmt: skip
        return (self.folder / "r.tsr").read_bytes()


def openssl(*words: str, cwd: Path) -> bytes:
    return subprocess.run(["openssl", *words], cwd=cwd, check=True, capture_output=True, timeout=60).stdout


SECTION = """[{0}_section]
serial = serial
signer_cert = {0}.pem
signer_key = {0}.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""


def make_tsa(folder: Path) -> Tsa:
    """An authority of a root; beside it one whose certificate is for servers, and one of another root."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for root in ("ca", "other"):
        openssl("req", "-x509", *curve, "-keyout", f"{root}.key", "-out", f"{root}.pem", "-days", "30",
                "-subj", f"/CN={root} root", cwd=folder)  # fmt: skip
    for name, root, use in (
        ("tsa", "ca", "critical,timeStamping"),
        ("web", "ca", "critical,serverAuth"),
        ("stranger", "other", "critical,timeStamping"),
    ):
        (folder / "ext").write_text(f"extendedKeyUsage = {use}\nkeyUsage = critical,digitalSignature\n")
        openssl(
            "req",
            "-new",
            *curve,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
            cwd=folder,
        )
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{root}.pem", "-CAkey", f"{root}.key", "-CAcreateserial",
                "-days", "30", "-extfile", "ext", "-out", f"{name}.pem", cwd=folder)  # fmt: skip
    (folder / "serial").write_text("01\n")
    sections = [SECTION.format(name) for name in ("tsa", "web", "stranger")]
    # The same signer, who sends its certificate twice: bytes that no signature of the token covers.
    sections.append(SECTION.format("tsa").replace("[tsa_section]", "[chain_section]\ncerts = tsa.pem"))
    (folder / "ts.cnf").write_text("".join(sections))
    return Tsa(folder, folder / "ca.pem")


def stamping(tsa: Tsa, answer: Callable[[Reply], Reply] | None = None) -> Receiver:
    """The authority behind HTTP; `answer` makes another of its answer."""

    class Live(Receiver):
        def __init__(self) -> None:
            super().__init__()
            outer = self

            class Script(list):  # asked for once the request is there
                def __bool__(self) -> bool:
                    return True

                def pop(self, _: int) -> Reply:
                    token = tsa.stamp(outer.requests[-1].body)
                    good = Reply(200, token, {"Content-Type": "application/timestamp-reply"})
                    return answer(good) if answer else good

            self.script = Script()

    return Live()
