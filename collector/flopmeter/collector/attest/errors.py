"""What can go wrong when a run is attested."""

from flopmeter.collector.errors import CollectorError


class AttestError(CollectorError):
    """An attestation is asked for in a way that no attestation is, or a word in it may not stand in the books."""

    exit_code = 2


class AttestRefused(AttestError):  # noqa: N818
    """Well-formed and refused: there is nothing to attest, or what was made would not pass the verifier."""

    exit_code = 1


class SignerError(CollectorError):
    """The key that signs cannot be used, or what it answered is no signature by the key that it names."""
