"""Standard Webhooks 1.0.0."""

import base64
import secrets

import pytest

from flopmeter.collector.deliver.signature import headers, read_keys
from flopmeter.collector.errors import SinkError

#: The vector that the specification's own libraries are tested with.
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'


def test_the_published_vector():
    assert headers(read_keys("s", KEY), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_during_a_rotation_each_key_signs():
    new = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    both = headers(read_keys("s", f"{new}\n{KEY}\n"), "m", 1, BODY)["webhook-signature"].split(" ")
    alone = [headers(read_keys("s", k), "m", 1, BODY)["webhook-signature"] for k in (new, KEY)]
    assert both == alone


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1 to 4 keys, one a line, got 0"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "expected whsec_"),
        ("whsec_not*base64", "base64 behind"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "24 to 64 bytes, got 23"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "24 to 64 bytes, got 65"),
        (f"{KEY} " * 5, "got 5"),
    ],
)
def test_keys_that_are_none_are_refused_and_never_shown(text, said):
    with pytest.raises(SinkError, match=said) as e:
        read_keys("file /x", text)
    assert "file /x" in str(e.value)
    shown = str(e.value) + e.value.hint
    assert all(word.removeprefix("whsec_") not in shown for word in text.split())
