"""Which machine an address means."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine: a loopback address, or the name localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
