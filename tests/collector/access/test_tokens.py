"""What can be an API token, a join token, an age."""

import pytest

from flopmeter.collector.access.errors import AccessError
from flopmeter.collector.access.tokens import api_token, join_token, parse_age, parse_api


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7d", 7 * 86_400)]
)
def test_ages(text, seconds):
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "1", "1w", "-1h", "1.5h", "99999d", "１h", "1h "])
def test_what_is_no_age(text):
    with pytest.raises(AccessError):
        parse_age(text)


@pytest.mark.parametrize("role", ["", "root", "Admin", "a" * 300])
def test_what_is_no_role(role):
    with pytest.raises(AccessError):
        api_token("x", b"", role=role, name="ann", expires_unix_s=0)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "n" * 300])
def test_an_api_token_has_a_name(name):
    with pytest.raises(AccessError):
        api_token("x", b"", role="admin", name=name, expires_unix_s=0)


@pytest.mark.parametrize(("nodes", "uses"), [("", 1), ("a\nb", 1), ("n" * 300, 1), ("*", 0), ("*", -1)])
def test_what_is_no_join_token(nodes, uses):
    with pytest.raises(AccessError):
        join_token("x", b"", name="", nodes=nodes, uses=uses, expires_unix_s=1)


def test_a_token_is_read_whole_or_not():
    assert parse_api("FMA1.0123456789ab." + "0" * 64) == ("0123456789ab", bytes(32))
    for text in (
        "FMA1.0123456789ab." + "0" * 63,
        "FMA2.0123456789ab." + "0" * 64,
        "FMA1.0123456789AB." + "0" * 64,
    ):
        assert parse_api(text) is None


@pytest.mark.parametrize(
    "tenant",
    [
        "nobody",
        "owner:",
        "owner: x",
        "slurm-account:physics",
        "a" * 900,
        "owner:" + "a" * 900,
        "owner:a\nb",
        "x:y",
    ],
)
def test_what_is_no_tenant(tenant):
    with pytest.raises(AccessError):
        api_token("x", b"", role="viewer", name="ann", expires_unix_s=0, tenant=tenant)


def test_an_admin_is_of_the_whole_site():
    with pytest.raises(AccessError):
        api_token("x", b"", role="admin", name="ann", expires_unix_s=0, tenant="owner:lab")


def test_a_row_says_nothing_of_tenants_unless_there_is_one():
    made = api_token("x", b"", role="viewer", name="ann", expires_unix_s=0)
    assert "tenant" not in made.detail()  # as rows of old have it
    bound = api_token(
        "x", b"", role="viewer", name="ann", expires_unix_s=0, tenant="slurm-account:tres/physics"
    )
    assert bound.detail()["tenant"] == "slurm-account:tres/physics"
