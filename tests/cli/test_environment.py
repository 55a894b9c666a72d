"""What Kubernetes sets for a Service of our name is passed over; a misspelt setting is not."""

import pytest

from flopmeter.cli.environment import is_service_link

LINKS = {
    "SERVICE_HOST": "10.96.0.7",
    "SERVICE_PORT": "9842",
    "SERVICE_PORT_METRICS": "9842",
    "PORT": "tcp://10.96.0.7:9842",
    "PORT_9842_TCP": "tcp://10.96.0.7:9842",
    "PORT_9842_TCP_PROTO": "tcp",
    "PORT_9842_TCP_PORT": "9842",
    "PORT_9842_TCP_ADDR": "10.96.0.7",
    "PORT_53_UDP": "udp://10.96.0.7:53",
    "METRICS_SERVICE_HOST": "fd00::7",
    "METRICS_PORT": "tcp://[fd00::7]:9842",
    "METRICS_PORT_9842_TCP_PORT": "9842",
}


@pytest.mark.parametrize(("name", "value"), LINKS.items())
def test_service_links_are_known(name: str, value: str) -> None:
    assert is_service_link(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "collector.example"),
        ("SERVICE_PORT", "http"),
        ("SERVICE_PORT", "70000"),
        ("SERVICE_PORT", "٣"),
        ("PORT", "9842"),
        ("PORT", "tcp://collector.example:9842"),
        ("PORT", "http://10.96.0.7:9842"),
        ("PORT", ""),
        ("PORT_9842_TCP_PROTO", "http"),
        ("PORT_9842_TCP_ADDR", "x"),
        ("PORT_9842_HTTP", "tcp://10.96.0.7:9842"),
        ("SERVICE", "10.96.0.7"),
        ("WINDW", "60s"),
        ("METRICS_ADRESS", "127.0.0.1:9842"),
        ("SUPPORT", "tcp://10.96.0.7:9842"),
    ],
)
def test_all_else_is_not(name: str, value: str) -> None:
    assert not is_service_link(name, value)
