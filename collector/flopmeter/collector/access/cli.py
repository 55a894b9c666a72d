"""`flopmeter collector token | agents`: who may join, who may ask, who may not any more."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector import empty
from flopmeter.collector.cli_parts import login, paint, store_option
from flopmeter.collector.keys_cli import keys_option
from flopmeter.collector.store_path import store_file

if TYPE_CHECKING:
    from flopmeter.cli.layout import Row

    from .desk import Desk
    from .tokens import Token, TokenState

_who = click.option("--who", help="Who says it.  [default: your login name and this host]")
_why = click.option("--why", required=True, help="Why, in a sentence that an auditor can follow.")


@click.group()
def token() -> None:
    """Tokens: for nodes to join by, and for people and programs to ask with.

    \b
      flopmeter collector token create --role viewer --name ada
      flopmeter collector token list
    """  # noqa: D301 - click wants the backspace character itself


@token.command()
@click.option("--role", help="Make an API token: admin, operator, auditor or viewer.")
@click.option("--name", default="", help="Whose it is.")
@click.option(
    "--tenant",
    default="",
    help="API token: sees the runs of this tenant only, named as `fleet tenants --json` has it.",
)
@click.option(
    "--nodes", default="*", show_default=True, help="Join token: pattern of the node names it is for."
)
@click.option(
    "--uses", type=int, default=1, show_default=True, help="Join token: how many nodes may join by it."
)
@click.option("--expires", help="How long it is good: 30m, 24h, 7d.  [default: join 24h; API never]")
@click.option(
    "--collector",
    default="COLLECTOR:9840",
    show_default=True,
    help="Address to print in the agent's command.",
)
@_who
@store_option
@keys_option
@json_option
def create(**said: Any) -> None:
    """Make a token. Without --role: one by which nodes join.

    Its secret is printed here and now, once: the store keeps a hash of it, and nothing else anywhere keeps it.
    """
    from .tokens import parse_age

    who, as_json = said["who"] or login(), said["as_json"]
    lasts_s = parse_age(said["expires"]) if said["expires"] else 0
    if said["role"]:
        text, made = _desk(said["store"], None).make_api_token(
            role=said["role"], name=said["name"], lasts_s=lasts_s, who=who, tenant=said["tenant"]
        )
        if as_json:
            emit_json({**_document(made), "text": text})
            return
        click.echo(text)
        click.echo(
            f"\nAPI token {made.token_id} of {made.name}, role {made.role}"
            + (f", for the runs of {made.tenant}" if made.tenant else "")
            + ". Not shown again.",
            err=True,
        )
        return
    if said["tenant"]:
        raise click.UsageError(
            "--tenant: expected it with --role; a node that joins is nobody's in particular"
        )
    join, made = _desk(said["store"], said["keys_dir"], ca=True).make_join_token(
        name=said["name"], nodes=said["nodes"], uses=said["uses"], lasts_s=lasts_s or 86_400, who=who
    )
    if as_json:
        emit_json({**_document(made), "text": join.text()})
        return
    click.echo(join.text())
    click.echo(
        f"\nJoin token {made.token_id}: {made.uses} node{'s' if made.uses != 1 else ''} named {made.nodes}, until "
        f"{_time(made.expires_unix_s)}. Not shown again. On the node, with that line in a file that only root can read:\n\n"
        f"  flopmeter agent run --collector {said['collector']} --join-file FILE",
        err=True,
    )


@token.command("list")
@store_option
@json_option
def list_(store: Path, as_json: bool) -> None:
    """Every token that was made, without its secret, and how it stands."""
    from flopmeter.cli.layout import table

    now_s = time.time_ns() // 1_000_000_000
    states = list(_desk(store, None).tokens().values())
    if as_json:
        emit_json({"tokens": [{**_document(s.token), **_standing(s, now_s)} for s in states]})
        return
    head = ("TOKEN", "FOR", "NAME", "USED", "UNTIL", "STATE")
    rows: list[Row] = [
        [
            (text, {})
            for text in (
                s.token.token_id,
                s.token.role + (f" of {s.token.tenant}" if s.token.tenant else "")
                or f"nodes {s.token.nodes}",
                s.token.name,
                f"{s.used} of {s.token.uses}" if not s.token.role else "",
                _time(s.token.expires_unix_s),
                s.fault(now_s) or "good",
            )
        ]
        for s in states
    ]
    click.echo(table(head, rows, paint(), cut=(1, 2)) if rows else empty.TOKENS)


@token.command()
@click.argument("token_id")
@_why
@_who
@store_option
def revoke(token_id: str, why: str, who: str | None, store: Path) -> None:
    """Make the token of that id good for nothing, from now on. Agents that joined by it stay.

    \b
      flopmeter collector token revoke 3f9c2a --why "ada has left"
    """  # noqa: D301 - click wants the backspace character itself
    _desk(store, None).revoke_token(token_id, who=_text("who", who or login()), why=_text("why", why))
    click.echo(f"Token {token_id} is revoked.")


@click.group()
def agents() -> None:
    """Who may ship records: list them, revoke one.

    \b
      flopmeter collector agents list
    """  # noqa: D301 - click wants the backspace character itself


@agents.command("list")
@store_option
@json_option
def list_agents(store: Path, as_json: bool) -> None:
    """Every agent that was ever let in: by whom, since when, and how it stands."""
    from flopmeter.cli.layout import table

    from .listing import listed

    found = listed(store_file(store))
    if as_json:
        emit_json({"agents": [a.document() for a in found]})
        return
    head = ("AGENT", "NODE", "BY", "STATE", "CERTIFICATE UNTIL")
    rows: list[Row] = [
        [
            (text, {})
            for text in (
                a.agent_id.hex(),
                a.node,
                a.how,
                a.state,
                _time(a.not_after_unix_s) if a.sequence else "",
            )
        ]
        for a in found
    ]
    click.echo(table(head, rows, paint(), cut=(1,)) if rows else empty.AGENTS)


@agents.command("revoke")
@click.argument("agent")
@_why
@_who
@store_option
@json_option
def revoke_agent(agent: str, why: str, who: str | None, store: Path, as_json: bool) -> None:
    """Take no record of AGENT (its id, the beginning of it, or its node) any more. Not to be undone.

    Records that were taken before count. A collector that runs ends its stream within seconds. The node can join
    again with a new record key and a new token.

    \b
      flopmeter collector agents revoke node-07 --why "its disk was stolen"
    """  # noqa: D301 - click wants the backspace character itself
    from .listing import listed, named

    found = named(listed(store_file(store)), agent)
    row = _desk(store, None).revoke_agent(
        found.agent_id, who=_text("who", who or login()), why=_text("why", why)
    )
    if as_json:
        emit_json({"agent": found.agent_id.hex(), "node": found.node, "access_no": str(row.access_no)})
    else:
        click.echo(f"Agent {found.agent_id.hex()} of node {found.node} is revoked.")


def _desk(store: Path, keys_dir: Path | None, *, ca: bool = False) -> "Desk":
    from flopmeter.collector.keys import keys_directory

    from .ca import at, load_or_create
    from .desk import Desk

    path = store_file(store)
    authority = load_or_create(keys_directory(keys_dir, path), at(time.time_ns())) if ca else None
    return Desk(path, authority)


def _document(made: "Token") -> dict[str, Any]:
    return {
        "token": made.token_id,
        "role": made.role or None,
        "name": made.name,
        "tenant": made.tenant or None,
        "nodes": made.nodes or None,
        "uses": str(made.uses) if not made.role else None,
        "expires_unix_s": str(made.expires_unix_s) if made.expires_unix_s else None,
    }


def _standing(state: "TokenState", now_s: int) -> dict[str, Any]:
    return {
        "used": str(state.used) if not state.token.role else None,
        "made_unix_ns": str(state.made_unix_ns),
        "state": state.fault(now_s) or "good",
    }


def _time(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M}" if unix_s else "never"


def _text(what: str, text: str) -> str:
    """What is to stand in the books: one printable line."""
    from .errors import AccessError

    if not text.strip() or len(text) > 2_000 or not text.isprintable():
        raise AccessError(
            f"{what}: expected one printable line of at most 2000 characters, got {text[:40]!r}",
            "say it in a sentence",
        )
    return text
