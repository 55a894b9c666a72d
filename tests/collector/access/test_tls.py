"""Certificates that are served: made, read again when they change, and never replaced by a bad one."""

import logging
import stat

import pytest
from access_rig import Authority
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from flopmeter.collector.access.ca import CA_CERTIFICATE, CA_KEY, at, load_or_create
from flopmeter.collector.access.errors import TlsFileError
from flopmeter.collector.access.tls import Embedded, Files, ServerTls, context
from flopmeter.collector.errors import KeyFileError


class Seconds:
    """A monotonic clock, moved by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 10.0  # each look is past LOOK_S
        return self.now


@pytest.fixture
def files(tmp_path):
    """Writes a pair; gives the paths."""
    paths = (tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    other = Authority()

    def write(pair=None, ca=None):
        chain, key = pair or other.issue("localhost", "127.0.0.1")
        for path, data in zip(paths, (chain, key, ca or other.pem), strict=True):
            new = path.with_suffix(".new")
            new.write_bytes(data)
            new.replace(path)
        return chain

    write()
    return paths, write


def test_a_pair_that_is_replaced_is_served_and_the_same_is_not_read_again(files, clock):
    paths, write = files
    tls = ServerTls(Files(paths, clock), clock, Seconds())
    first = tls.now()
    assert tls.now() is first
    chain = write()
    assert tls.now().chain == chain
    assert tls.reloads == 1


def bad_pairs():
    a = Authority()
    edwards = ed25519.Ed25519PrivateKey.generate()
    good, key = a.issue("localhost")
    return {
        "another key": (good, a.issue("localhost")[1], "expected the key of the certificate"),
        "no certificate": (b"nothing", key, "certificates in PEM"),
        "no key": (good, b"nothing", "a private key in PEM"),
        "half a certificate": (good[: len(good) // 2], key, "certificates in PEM"),
        "huge": (b"x" * (2 << 20), key, "at most"),
        "an Edwards curve": (*a.issue("localhost", key=edwards), "an Edwards-curve one"),
    }


@pytest.mark.parametrize("which", sorted(bad_pairs()))
def test_a_bad_new_pair_changes_nothing_and_is_said_once(files, clock, caplog, which):
    paths, write = files
    tls = ServerTls(Files(paths, clock), clock, Seconds())
    good = tls.now()
    chain, key, why = bad_pairs()[which]
    write((chain, key))
    with caplog.at_level(logging.ERROR):
        assert tls.now() is good
        assert tls.now() is good
    assert why in caplog.text
    assert caplog.text.count(why) == 1
    assert tls.fault is not None
    chain = write()
    assert tls.now().chain == chain
    assert tls.fault is None


def test_an_expired_pair_is_not_taken(files, clock):
    paths, write = files
    tls = ServerTls(Files(paths, clock), clock, Seconds())
    good = tls.now()
    clock.move(hours=2)  # … of what is written now, too: it lasts an hour from the real now
    write()
    assert tls.now() is good
    assert "one that ended" in str(tls.fault)


def test_files_that_are_gone_change_nothing(files, clock):
    paths, write = files
    tls = ServerTls(Files(paths, clock), clock, Seconds())
    good = tls.now()
    paths[0].unlink()
    assert tls.now() is good
    assert "No such file" in str(tls.fault)
    chain = write()
    assert tls.now().chain == chain


@pytest.mark.parametrize("which", sorted(bad_pairs()))
def test_no_start_with_a_bad_pair(files, clock, which):
    paths, write = files
    chain, key, why = bad_pairs()[which]
    write((chain, key))
    with pytest.raises(TlsFileError, match=why):
        ServerTls(Files(paths, clock), clock)


def test_our_own_certificate_is_made_anew_at_half_of_its_life(tmp_path, clock):
    ca = load_or_create(tmp_path / "keys", at(clock()))
    tls = ServerTls(Embedded(ca, ("localhost", "127.0.0.1", "::1"), clock), clock, Seconds())
    first = tls.now()
    clock.move(hours=83)
    assert tls.now() is first
    clock.move(hours=2)
    second = tls.now()
    assert second is not first
    leaf = x509.load_pem_x509_certificate(second.chain)
    leaf.verify_directly_issued_by(ca.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in names] == ["localhost", "127.0.0.1", "::1"]
    context(second)  # the standard library takes it


# --- the authority's own files ---


def test_the_authority_is_made_once_and_may_sign_leaves_of_its_trust_domain_only(tmp_path, clock):
    keys = tmp_path / "keys"
    ca, again = (load_or_create(keys, at(clock())) for _ in range(2))
    assert ca.pin == again.pin
    assert ca.certificate == again.certificate
    of = ca.certificate.extensions.get_extension_for_class
    assert of(x509.BasicConstraints).critical
    assert of(x509.BasicConstraints).value.path_length == 0
    assert of(x509.NameConstraints).critical
    assert [n.value for n in of(x509.NameConstraints).value.permitted_subtrees] == [ca.trust_domain]
    assert isinstance(ca.certificate.public_key(), ec.EllipticCurvePublicKey)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    for name in (CA_KEY, CA_CERTIFICATE):
        assert stat.S_IMODE((keys / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_an_authoritys_key_that_others_can_read_is_refused(tmp_path, clock, mode):
    load_or_create(tmp_path / "keys", at(clock()))
    (tmp_path / "keys" / CA_KEY).chmod(mode)
    with pytest.raises(KeyFileError, match="expected mode 0600"):
        load_or_create(tmp_path / "keys", at(clock()))


def test_an_authoritys_key_that_is_a_link_damaged_or_of_another_sort_is_refused(tmp_path, clock):
    keys = tmp_path / "keys"
    load_or_create(keys, at(clock()))
    key, certificate = keys / CA_KEY, keys / CA_CERTIFICATE
    good = key.read_bytes()
    key.rename(keys / "elsewhere")
    key.symlink_to(keys / "elsewhere")
    with pytest.raises(KeyFileError):
        load_or_create(keys, at(clock()))
    key.unlink()
    for bad in (b"", good[:60], ed25519_pem()):
        key.write_bytes(bad)
        key.chmod(0o600)
        with pytest.raises(KeyFileError):
            load_or_create(keys, at(clock()))
    key.write_bytes(good)
    for bad in (b"", certificate.read_bytes()[:90], Authority().pem):
        certificate.write_bytes(bad)
        with pytest.raises(KeyFileError):
            load_or_create(keys, at(clock()))


def test_a_certificate_of_another_key_is_refused(tmp_path, clock):
    one, two = (tmp_path / name for name in ("one", "two"))
    for keys in (one, two):
        load_or_create(keys, at(clock()))
    (two / CA_CERTIFICATE).replace(one / CA_CERTIFICATE)
    with pytest.raises(KeyFileError, match="another's"):
        load_or_create(one, at(clock()))


def ed25519_pem():
    from access_rig import pem_of

    return pem_of(ed25519.Ed25519PrivateKey.generate())
