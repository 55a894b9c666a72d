"""A certificate authority with its enrolment by docs/identity.md, small and written apart from the collector's.

It misbehaves on order: loses an answer behind a request that it took, refuses, is another than the token's.
"""

import hashlib
import json
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nacl.signing import VerifyKey

from flopmeter.wire.v1 import identity_pb2

DOMAIN = "test.flopmeter.internal"
_SPKI = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem_key(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """Signs whatever it is asked to, for `life` from `now`."""

    def __init__(self, name: str = "test authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.life = timedelta(hours=24)
        self.age = timedelta(minutes=5)  # how long ago the certificates begin
        built = self._builder(self.name, self.key.public_key(), timedelta(days=1), timedelta(days=3650))
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = built.sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    @property
    def pin(self) -> str:
        return hashlib.sha256(self.key.public_key().public_bytes(*_SPKI)).hexdigest()

    def _builder(self, subject, public, age, life):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - age)
            .not_valid_after(now - age + life)
        )

    def sign(self, public, *names) -> bytes:
        built = self._builder(x509.Name([]), public, self.age, self.life)
        built = built.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return built.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def pair(self, *names: str) -> tuple[bytes, bytes]:
        """(certificate, key) under these names: an address, a URI, or a host."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = []
        for name in names or ("127.0.0.1", "localhost"):
            if "://" in name:
                made.append(x509.UniformResourceIdentifier(name))
            elif name[0].isdigit():
                made.append(x509.IPAddress(ip_address(name)))
            else:
                made.append(x509.DNSName(name))
        return self.sign(key.public_key(), *made), pem_key(key)

    def server_credentials(self, *names: str) -> grpc.ServerCredentials:
        certificate, key = self.pair(*names)
        return grpc.ssl_server_credentials([(key, certificate)], self.pem, require_client_auth=True)


class EnrolmentServer:
    """HTTPS on loopback. Orders and what was seen stand in attributes without an underscore."""

    def __init__(self, authority: Authority, directory: Path, *names: str) -> None:
        self.authority = authority
        self.secret = hashlib.sha256(b"secret").hexdigest()
        self.token_id = "token0001"
        self.asked: list[tuple[str, dict]] = []  # path, body: all requests
        self.given: dict[str, tuple[int, bytes, bytes]] = {}  # agent -> sequence, sha256(csr), certificate
        self.lose_answers = 0  # so many answers of what was taken never arrive
        self.refuse: tuple[int, str] | None = None  # status, word
        self.answer_with: bytes | None = None  # instead of JSON
        self.used_by = ""
        self._nonces: set[str] = set()
        certificate, key = authority.pair(*names)
        path = directory / "enrolment.pem"
        path.write_bytes(key + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._get(self)

            def do_POST(self) -> None:
                outer._post(self)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                raw, address = super().get_request()
                raw.settimeout(10)
                return context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, request, client_address) -> None:
                pass  # a handshake that a client broke off

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def token(self) -> str:
        return f"FM1{self.authority.pin}.{self.token_id}.{self.secret}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _get(self, h) -> None:
        self.asked.append((h.path, {}))
        if h.path == "/ca":
            self._say(h, 200, {"ca_pem": self.authority.pem.decode(), "trust_domain": DOMAIN})
        elif h.path == "/nonce":
            nonce = hashlib.sha256(f"{len(self.asked)}".encode()).hexdigest()
            self._nonces.add(nonce)
            self._say(h, 200, {"nonce": nonce})
        else:
            self._say(h, 404, {"error": "not-found", "message": "?", "todo": ""})

    def _post(self, h) -> None:
        body = json.loads(h.rfile.read(int(h.headers["Content-Length"])))
        self.asked.append((h.path, body))
        if self.refuse is not None:
            status, word = self.refuse
            self._say(h, status, {"error": word, "message": "no\x1b[2J", "todo": "do this"})
            return
        assert body["nonce"] in self._nonces
        self._nonces.discard(body["nonce"])
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        assert csr.is_signature_valid
        sha = [
            hashlib.sha256(x).digest() for x in (bytes.fromhex(body["nonce"]), csr.public_bytes(Encoding.DER))
        ]
        if h.path == "/enrol":
            assert (body["token_id"], body["secret"]) == (self.token_id, self.secret)
            public = bytes.fromhex(body["public_key"])
            agent = hashlib.sha256(public).digest()[:16].hex()
            message = b"flopmeter-enrol-v1\n" + b"".join(
                [*sha, *(hashlib.sha256(body[k].encode()).digest() for k in ("token_id", "node"))]
            )
            VerifyKey(public).verify(message, bytes.fromhex(body["signature"]))
            self.public = public
            taken = self._give(agent, csr, None)
            if taken is None:
                self._say(h, 403, {"error": "token-used", "message": "used", "todo": "make another"})
                return
        else:
            agent, sequence = body["agent_id"], int(body["sequence"])
            message = b"flopmeter-renew-v1\n" + b"".join(
                [*sha, bytes.fromhex(agent), sequence.to_bytes(8, "big")]
            )
            VerifyKey(self.public).verify(message, bytes.fromhex(body["signature"]))
            taken = self._give(agent, csr, sequence)
            if taken is None:
                self._say(h, 409, {"error": "cloned", "message": "outdated sequence", "todo": "join again"})
                return
        if self.lose_answers:
            self.lose_answers -= 1
            h.connection.close()
            return
        sequence, _, certificate = taken
        answer = {"certificate_pem": certificate.decode(), "ca_pem": self.authority.pem.decode()}
        more = {"trust_domain": DOMAIN, "sequence": str(sequence), "not_after_unix_s": "0"}
        self._say(h, 200, answer | more)

    def _give(self, agent: str, csr, sequence: int | None) -> tuple[int, bytes, bytes] | None:
        """By the rule of the sequence: the same CSR again, the next sequence, or None: refused."""
        digest = hashlib.sha256(csr.public_bytes(Encoding.DER)).digest()
        known = self.given.get(agent)
        if known is not None and known[1] == digest:
            return known
        if (known[0] if known else None) != sequence:
            return None
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [n.value for n in names] == [f"spiffe://{DOMAIN}/flopmeter/agent/{agent}"]
        given = ((known[0] if known else 0) + 1, digest, self.authority.sign(csr.public_key(), *names))
        self.given[agent] = given
        return given

    def _say(self, h, status: int, data: dict) -> None:
        raw = self.answer_with if self.answer_with is not None else json.dumps(data).encode()
        h.send_response(status)
        h.send_header("Content-Length", str(len(raw)))
        h.end_headers()
        h.wfile.write(raw)

    # The identity service on the gRPC port, beside a FakeCollector.

    def renew_handler(self) -> grpc.GenericRpcHandler:
        def renew(raw: bytes, context) -> bytes:
            request = identity_pb2.RenewRequest.FromString(raw)
            self.asked.append(("Renew", {"sequence": request.sequence}))
            uri = context.auth_context()["x509_subject_alternative_name"][0].decode()
            given = self._give(uri.rpartition("/")[2], x509.load_der_x509_csr(request.csr), request.sequence)
            if given is None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "outdated sequence: the key is in use twice")
            if self.lose_answers:
                self.lose_answers -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            sequence, _, certificate = given
            return identity_pb2.RenewResponse(
                certificate_pem=certificate, ca_pem=self.authority.pem, sequence=sequence
            ).SerializeToString()

        handler = grpc.unary_unary_rpc_method_handler(renew)
        return grpc.method_handlers_generic_handler("flopmeter.wire.v1.IdentityService", {"Renew": handler})
