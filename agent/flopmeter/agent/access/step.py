"""One step with `cryptography`, in a process of its own: `python -m flopmeter.agent.access.step`, JSON in, JSON out.

The running agent holds 48 MiB; keys and certificates would be a fifth more, for some milliseconds twice a day. The
request comes on standard input, so that no secret stands in a process list. What must survive is on disk before it
is sent or answered (state.py).
"""

import json
import sys
from pathlib import Path
from typing import Any

from flopmeter.agent.errors import AgentError
from flopmeter.agent.keys import load_or_create_key
from flopmeter.contract.enrolment import agent_uri, enrol_message, parse_join_token, renew_message
from flopmeter.contract.errors import ContractError

from .certificates import check_issued, csr_der, facts_of, new_request, pin_of
from .enrolment import Enrolment, fetch_ca
from .state import (
    Identity,
    IdentityError,
    Request,
    load_identity,
    load_request,
    save_identity,
    save_request,
)


def join(state: Path, token: str, node: str, *, host: str, port: int, server_name: str) -> None:
    """A first certificate: pin the authority, and only then tell the secret."""
    parsed = parse_join_token(token)
    key = load_or_create_key(state)
    ca_pem, trust_domain = fetch_ca(host, port)
    pin = parsed.ca_spki_sha256.hex()
    if pin_of(ca_pem) != pin:
        raise IdentityError(
            f"enrolment at {host}:{port}: its authority has the pin {pin_of(ca_pem)[:16]}…, the token's is {pin[:16]}…; "
            "nothing was sent",
            "check --collector, take a token of this collector, and see who answers there",
            final=True,
        )
    uri = agent_uri(trust_domain, key.agent_id)
    request = load_request(state)
    if request is None or (request.token_id, request.sequence, request.uri) != (parsed.token_id, -1, uri):
        request = new_certificate_request(
            state, parsed.token_id, -1, uri
        )  # from here on the same key is asked for, however often
    server = Enrolment(host, port, ca_pem, server_name)
    nonce = server.nonce()
    answer = server.post(
        "/enrol",
        {
            "token_id": parsed.token_id,
            "secret": parsed.secret.hex(),
            "node": node,
            "public_key": key.public.hex(),
            "csr": request.csr_pem,
            "nonce": nonce.hex(),
            "signature": key.sign(
                enrol_message(nonce, csr_der(request.csr_pem), parsed.token_id, node)
            ).hex(),
        },
    )
    keep_answer(state, request, answer, trust_domain=trust_domain, pin=pin, uri=uri)


def renew_by_key(state: Path, host: str, port: int, server_name: str) -> None:
    """A certificate in place of one that has expired, asked for by the record key."""
    identity, key = _identity(state), load_or_create_key(state)
    request = _renewal(state, identity)
    server = Enrolment(host, port, identity.ca_pem, server_name)
    nonce = server.nonce()
    message = renew_message(nonce, csr_der(request.csr_pem), key.agent_id, identity.sequence)
    answer = server.post(
        "/renew",
        {
            "agent_id": key.agent_id.hex(),
            "csr": request.csr_pem,
            "sequence": str(identity.sequence),
            "nonce": nonce.hex(),
            "signature": key.sign(message).hex(),
        },
    )
    _keep_next(state, request, answer, identity)


def prepare(state: Path) -> dict[str, Any]:
    """The request for a renewal over mTLS, durable: the same as long as it has no answer."""
    identity = _identity(state)
    request = _renewal(state, identity)
    return {"csr": csr_der(request.csr_pem).hex(), "sequence": request.sequence}


def take(state: Path, answer: dict[str, Any]) -> None:
    """The answer to what `prepare` made."""
    identity, request = _identity(state), load_request(state)
    if request is None or request.sequence != identity.sequence:
        raise IdentityError("an answer came to a renewal that was not asked for")
    _keep_next(state, request, answer, identity)


def inspect(certificate_pem: str, key_pem: str, ca_pem: str) -> dict[str, Any]:
    """What certificates of another authority say, if they belong together."""
    facts = facts_of(certificate_pem, key_pem, ca_pem)
    return {
        "not_before_unix_s": facts.not_before_unix_s,
        "not_after_unix_s": facts.not_after_unix_s,
        "uris": facts.uris,
        "issuer": facts.issuer,
    }


def _identity(state: Path) -> Identity:
    identity = load_identity(state)
    if identity is None:
        raise IdentityError("this agent has no certificate", "join with a token: --join", final=True)
    return identity


def _uri(identity: Identity) -> str:
    return agent_uri(identity.trust_domain, bytes.fromhex(identity.agent_id))


def _renewal(state: Path, identity: Identity) -> Request:
    request = load_request(state)
    if request is None or (request.sequence, request.uri) != (identity.sequence, _uri(identity)):
        request = new_certificate_request(state, identity.token_id, identity.sequence, _uri(identity))
    return request


def new_certificate_request(state: Path, token_id: str, sequence: int, uri: str) -> Request:
    """A request with a new key, durable on return."""
    key_pem, csr_pem = new_request(uri)
    request = Request(token_id, sequence, uri, csr_pem, key_pem)
    save_request(state, request)
    return request


def _keep_next(state: Path, request: Request, answer: dict[str, Any], identity: Identity) -> None:
    """Another certificate for the agent that there is."""
    keep_answer(
        state, request, answer, trust_domain=identity.trust_domain, pin=identity.ca_pin, uri=_uri(identity)
    )


def keep_answer(
    state: Path, request: Request, answer: dict[str, Any], *, trust_domain: str, pin: str, uri: str
) -> None:
    """The answer to `request`, checked; it is the identity in `state`, durably, and the request is forgotten."""
    try:
        certificate, ca_pem = str(answer["certificate_pem"]), str(answer["ca_pem"])
        sequence = int(answer["sequence"])
    except (KeyError, ValueError, TypeError) as e:
        raise IdentityError(f"enrolment: the answer is not one: {e!r}", "is it a flopmeter collector?") from e
    facts = check_issued(certificate, request.key_pem, ca_pem, uri)
    save_identity(
        state,
        Identity(
            agent_id=uri.rpartition("/")[2],
            trust_domain=trust_domain,
            ca_pin=pin,
            token_id=request.token_id,
            sequence=sequence,
            not_before_unix_s=facts.not_before_unix_s,
            not_after_unix_s=facts.not_after_unix_s,
            certificate_pem=certificate,
            ca_pem=ca_pem,
            key_pem=request.key_pem,
        ),
    )


_STEPS = {"join": join, "renew-by-key": renew_by_key, "prepare": prepare, "take": take, "inspect": inspect}


def main() -> int:
    data = json.loads(sys.stdin.buffer.read())
    name, values = data["step"], data["values"]
    if "state" in values:
        values["state"] = Path(values["state"])
    try:
        said: dict[str, Any] = _STEPS[name](**values) or {}  # type: ignore[operator]
    except AgentError as e:
        message = e.args[0] if e.args else str(e)
        said = {"error": message, "hint": e.hint, "final": getattr(e, "final", False)}
    except ContractError as e:
        said = {"error": str(e), "hint": "", "final": True}
    json.dump(said, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
