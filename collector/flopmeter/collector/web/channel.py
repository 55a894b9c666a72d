"""By what way a request came: tokens travel by TLS, by a proxy that ends it, or not out of this machine. Pure."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from flopmeter.cli.addresses import is_loopback

from .says import Refused

#: A proxy says these. Without --http-proxied they mean that this port is reached from elsewhere, unknown how.
_OF_PROXIES = (
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"forwarded",
    b"via",
    b"x-real-ip",
)
Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a request comes from, and whether its way is encrypted."""

    address: str
    secure: bool
    #: Why no token is taken by it; "" = it is.
    fault: str = ""
    hint: str = ""
    #: Whether no proxy brings it.
    direct: bool = True


def channel_of(peer: str, headers: Headers, *, tls: bool, proxied: bool) -> Channel:
    """`peer`: the address of the connection."""
    if tls:
        return Channel(peer, secure=True)
    if proxied:
        address = _address(values(headers, b"x-forwarded-for")[-1:]) or peer
        direct = not any(name in _OF_PROXIES for name, _ in headers)
        if values(headers, b"x-forwarded-proto")[-1:] == ["https"]:
            return Channel(address, secure=True, direct=direct)
        return Channel(
            address,
            secure=False,
            fault="expected a proxy that ends TLS and says X-Forwarded-Proto: https, got a request without it",
            hint="ask by the proxy's address; the proxy must set that header (docs/web.md)",
            direct=direct,
        )
    if not is_loopback(peer.partition("%")[0]):
        return Channel(
            peer,
            secure=False,
            fault="expected a request from this machine, or TLS: tokens do not travel in plain text",
            hint="ssh -L 9841:127.0.0.1:9841 HOST, or start the collector with --http-tls (docs/web.md)",
        )
    if any(name in _OF_PROXIES for name, _ in headers):
        return Channel(
            peer,
            secure=False,
            fault="expected a request from this machine, got one that a proxy brings",
            hint="start the collector with --http-proxied, behind a proxy that ends TLS (docs/web.md)",
        )
    if not is_loopback(host_of(headers)):
        return Channel(
            peer,
            secure=False,
            fault="expected Host: localhost or a loopback address, got another name",
            hint="open http://localhost with this port; under a name of its own it needs TLS (docs/web.md)",
        )
    return Channel(peer, secure=False)


def check_taken(channel: Channel) -> None:
    """Raise Refused (403) where no token is taken by this way."""
    if channel.fault:
        raise Refused(403, channel.fault, channel.hint)


def check_name(peer: str, headers: Headers) -> None:
    """Raise Refused (403) for a request of this machine, in plain text, under a name that is none of its own.

    A page of elsewhere whose name was bound to a loopback address makes a browser here ask so (DNS rebinding), and reads
    what is answered. Nobody can bind an address, or a name without a dot that resolvers here look up by themselves.
    """
    if not is_loopback(peer.partition("%")[0]) or not values(headers, b"host"):
        return  # a browser always names one
    name, own = host_of(headers), socket.gethostname().lower()
    if name in ("localhost", own, own.partition(".")[0]):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise Refused(
            403,
            "expected Host: localhost, an address or this machine's own name, got another name",
            "ask http://localhost with this port (docs/web.md)",
        ) from None


def check_same_origin(headers: Headers, *, scheme: str, needed: bool) -> None:
    """Raise Refused (403) unless the page itself asks.

    A browser says by whom it was made to ask: Sec-Fetch-Site (Fetch Metadata), or Origin (RFC 6454) if it is older.
    `needed`: one of them has to be there, as with what changes something.
    """
    site, origin = values(headers, b"sec-fetch-site"), values(headers, b"origin")
    if site:
        # "none": the person's own doing, such as an address typed in; it never changes anything.
        good = site == ["same-origin"] or (site == ["none"] and not needed)
    elif origin:
        host = values(headers, b"host")
        good = len(host) == 1 and origin == [f"{scheme}://{host[0]}"]
    else:
        good = not needed
    if not good:
        raise Refused(
            403,
            "expected the collector's own page to ask, got another site's, or nobody's word on it",
            "programs use Authorization: Bearer and no cookie",
        )


def _address(said: Sequence[str]) -> str:
    """The address that a proxy names last, which is what it saw itself; "" where that is none."""
    try:
        return str(ipaddress.ip_address(said[0])) if said else ""
    except ValueError:
        return ""


def host_of(headers: Headers) -> str:
    """The name in Host, without its port; "" where there is not one."""
    found = values(headers, b"host")
    if len(found) != 1:
        return ""
    host = found[0]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def values(headers: Headers, name: bytes) -> list[str]:
    """All values of a header that is a list, in order."""
    found: list[str] = []
    for key, value in headers:
        if key == name:
            found += [part.strip() for part in value.decode("latin-1").split(",")]
    return found
