"""Variables that Kubernetes sets for every Service of the namespace: with ours by name, and none of our settings.

A Service `flopmeter-agent` gives each pod FLOPMETER_AGENT_SERVICE_HOST, FLOPMETER_AGENT_PORT=tcp://10.0.0.1:9842 and
more (kubernetes.io, "Discovering services", environment variables). They are known by name and value together, so
that a misspelt setting is still refused.
"""

import ipaddress
import re

_HOST = re.compile(r"([A-Z0-9_]+_)?SERVICE_HOST\Z")
_PORT = re.compile(r"([A-Z0-9_]+_)?SERVICE_PORT(_[A-Z0-9_]+)?\Z")
_LINK = re.compile(r"([A-Z0-9_]+?_)??PORT(_\d+_(TCP|UDP|SCTP)(_(?P<part>PROTO|PORT|ADDR))?)?\Z")
_URL = re.compile(r"(tcp|udp|sctp)://(?P<host>\[[0-9a-fA-F:.]+\]|[^:/]+):(?P<port>\d{1,5})\Z", re.ASCII)


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable, `name` without our prefix, is one that Kubernetes sets for a Service."""
    if _HOST.match(name):
        return _is_address(value)
    if _PORT.match(name):
        return _is_port(value)
    link = _LINK.match(name)
    if link is None:
        return False
    part = link["part"]
    if part == "PROTO":
        return value in ("tcp", "udp", "sctp")
    if part == "PORT":
        return _is_port(value)
    if part == "ADDR":
        return _is_address(value)
    url = _URL.match(value)
    return url is not None and _is_address(url["host"].strip("[]")) and _is_port(url["port"])


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and 0 < int(value) <= 65_535
