"""`flopmeter verify --tsa-cert`: a token that was tampered with is refused, never a crash, never another time."""

from pathlib import Path

import pytest
from rfc3161_client import TimestampRequestBuilder
from tsa_rig import make_tsa

from flopmeter.cli.verify import _stamps
from flopmeter.evidence.errors import EvidenceError

TEXT = b"lab.example/log\n1\nAAAA\n"


@pytest.mark.parametrize("signer", ["tsa", "chain"])
def test_a_token_with_one_bit_changed(tmp_path: Path, signer: str) -> None:
    tsa = make_tsa(tmp_path)
    good = tsa.stamp(TimestampRequestBuilder().data(TEXT).build().as_bytes(), signer=signer)
    check = _stamps(tsa.ca)
    time = check(good, TEXT)
    refused = 0
    for i in range(len(good)):
        try:
            assert check(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :], TEXT) == time
        except EvidenceError:
            refused += 1
    assert refused > len(good) // 2
