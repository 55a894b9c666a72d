"""fsck on who might speak: each rule of the access table, broken by somebody who can write the file and chain it anew."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from access_rig import Clock, Node, desk_at, join_token
from builders import Chain
from desk import Desk as Pipeline
from relog import relog

from flopmeter.collector.access.desk import Desk
from flopmeter.collector.access.enrol import KeyChange
from flopmeter.collector.access.rows import AccessRow, detail_text, row_hash
from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.store.access import INSERT_ACCESS, SELECT, access_rows
from flopmeter.contract.enrolment import key_change_message


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """One admitted by hand and revoked; one that joined, renewed and changed its key; a token revoked, one for people."""
    folder = tmp_path_factory.mktemp("access")
    path, clock = folder / "b.db", Clock()
    desk = desk_at(folder, clock)
    spare, _ = desk.make_join_token(name="t", nodes="gpu-9*", uses=3, lasts_s=60, who="ann")
    desk.revoke_token(spare.token_id, who="ann", why="not needed")
    desk.make_api_token(role="auditor", name="bob", lasts_s=0, who="ann")
    first, joined, changed = Chain("gpu-001"), Chain("gpu-002"), Chain("gpu-003")
    changed.node = joined.node
    node = Node(joined).joined(desk)
    with Pipeline(path) as line:

        def send(chain):
            agent = line.agent(chain)
            if not agent.entered:
                line.commit()
            line.offer(agent, chain.next()) is TAKEN  # noqa: B015
            line.commit()
            return agent

        one = send(first)
        send(joined)
        given = desk.renew(node.agent_id, node.new_key().csr(desk.ca.trust_domain), 1)
        send(joined)
        after = Node(changed)
        csr = after.csr(desk.ca.trust_domain)
        message = _message(node, after, csr, given.sequence)
        desk.change_key(
            KeyChange(
                node.agent_id,
                changed.public_key,
                csr,
                given.sequence,
                node.sign(message),
                after.sign(message),
            )
        )
        send(changed)
        Desk(path, None).revoke_agent(one.agent_id, who="ann", why="stolen")
        assert line.intake.look_at_access()
        line.commit()
    return path


def _message(node, after, csr, sequence):
    from access_rig import der_of

    return key_change_message(node.agent_id, after.chain.public_key, der_of(csr), sequence)


@pytest.fixture
def copy(books, tmp_path):
    path = tmp_path / "b.db"
    with closing(sqlite3.connect(books)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(books, path)
    return path


def difference(path):
    found = check_store(path, ()).difference
    return None if found is None else f"{found.table}, {found.key}: {found.column}"


def test_what_came_about_is_good(books):
    result = check_store(books, ())
    assert result.difference is None, result_text(result)
    with closing(sqlite3.connect(books)) as db:
        kinds = [kind for (kind,) in db.execute("SELECT kind FROM access ORDER BY access_no")]
    assert kinds == [
        "token-made", "token-revoked", "token-made", "token-made", "token-used", "enrolled",
        "admitted", "renewed", "key-changed", "enrolled", "revoked",
    ]  # fmt: skip


def rewritten(path, change):
    """The table as `change` would have it, chained anew, and in a log that was made anew."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows = list(change(access_rows(db.execute(SELECT).fetchall())))
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DELETE FROM access")
        before = NO_HASH
        for number, row in enumerate(rows, 1):
            bare = row._replace(access_no=number, prev_hash=before)
            sealed = bare._replace(hash=row_hash(bare))
            db.execute(INSERT_ACCESS, sealed)
            before = sealed.hash
        for _, sql in triggers:
            db.execute(sql)
    relog(path)


def detail(number, **new):
    """Row `number` with other texts in its detail; None takes one out."""

    def change(rows):
        for row in rows:
            if row.access_no == number:
                said = {**json.loads(row.detail), **new}
                kept = detail_text({k: v for k, v in said.items() if v is not None})
                yield row._replace(detail=kept)
                continue
            yield row

    return change


def column(number, **new):
    return lambda rows: (r._replace(**new) if r.access_no == number else r for r in rows)


def without(*numbers):
    return lambda rows: (r for r in rows if r.access_no not in numbers)


def again(number, behind):
    """A second copy of a row."""

    def change(rows: list[AccessRow]):
        for row in rows:
            yield row
            if row.access_no == behind:
                yield rows[number - 1]

    return change


def flipped(text):
    return ("1" if text[0] == "0" else "0") + text[1:]


def signature(number, name):
    def change(rows):
        said = json.loads(rows[number - 1].detail)
        return detail(number, **{name: flipped(said[name])})(rows)

    return change


def of_agent(number, source):
    return lambda rows: column(number, agent_id=rows[source - 1].agent_id)(rows)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        # Tokens
        (without(4), "access, access_no 4: subject"),  # used, and never made
        (column(5, unix_ns=2**62), "access, access_no 5: unix_ns"),  # expired
        (detail(4, uses="0"), "access, access_no 5: row"),
        (detail(4, nodes="cpu-*"), "access, access_no 5: detail.node"),
        (detail(4, role="admin"), "access, access_no 5: subject"),
        (detail(4, secret_sha256=None), "access, access_no 4: detail.secret_sha256"),
        (again(1, 3), "access, access_no 4: subject"),  # made twice
        (again(2, 3), "access, access_no 4: kind"),  # revoked twice
        (column(4, agent_id=bytes(16)), "access, access_no 4: agent_id"),
        (detail(4, expires_unix_s="soon"), "access, access_no 5: detail"),
        # Enrolment: by the use of a token, and one use is one enrolment
        (without(6), "access, access_no 6: kind, agent_id, subject, detail.token"),
        (without(5), "access, access_no 5: row before it"),
        (again(6, 6), "access, access_no 7: row before it"),
        (again(5, 6), "access, access_no 7: row"),
        (lambda rows: rows[:5], "access, access_no 5: row behind it"),
        (detail(6, key="00" * 32), "access, access_no 6: agent_id"),
        (detail(6, key="zz"), "access, access_no 6: detail"),
        (detail(6, token=None), "access, access_no 6: kind, agent_id, subject, detail.token"),
        (column(6, subject="gpu-777"), "access, access_no 6: kind, agent_id, subject, detail.token"),
        # Renewal
        (detail(8, sequence="3"), "access, access_no 8: detail.sequence"),
        (again(8, 8), "access, access_no 9: detail.sequence"),
        (of_agent(8, 11), "access, access_no 8: detail.sequence"),
        # Another key
        (signature(9, "by_old"), "access, access_no 9: detail.by_old"),
        (signature(9, "by_new"), "access, access_no 9: detail.by_new"),
        (detail(9, sequence="1"), "access, access_no 9: detail.sequence"),
        (without(9), "access, access_no 9: row before it"),
        (without(10), "certificates, agent"),
        # The end
        (again(11, 11), "access, access_no 12: kind"),
        (again(7, 11), "access, access_no 12: kind"),
        (column(11, kind="clone-seen"), "access, access_no 11: detail.expected"),
        (without(7), "access, access_no 10: agent_id"),
    ],
)  # fmt: skip
def test_each_rule(copy, change, named):
    rewritten(copy, change)
    assert (difference(copy) or "nothing").startswith(named)


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE certificates SET sequence = sequence + 1", "certificates, agent"),
        ("UPDATE certificates SET certificate = x'00'", "certificates, agent"),
        ("UPDATE certificates SET not_after_unix_s = 0", "certificates, agent"),
        ("DELETE FROM certificates WHERE sequence = 2", "certificates, agent"),
        ("UPDATE access SET detail = '{}' WHERE access_no = 11", "access, access_no 11: hash"),
    ],
)
def test_what_is_beside_the_rows(copy, sql, named):
    with closing(sqlite3.connect(copy)) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        assert db.execute(sql).rowcount
        db.commit()
    assert (difference(copy) or "nothing").startswith(named)


def test_a_record_behind_the_revocation_of_its_agent_is_named(tmp_path):
    """A stolen old key, and a collector that takes what it signs all the same: the log's order says so."""
    with Pipeline(tmp_path / "b.db") as line:
        chain = Chain("gpu-001")
        agent = line.agent(chain)
        line.offer(agent, chain.next())
        line.commit()
        Desk(tmp_path / "b.db", None).revoke_agent(agent.agent_id, who="ann", why="stolen")
        line.intake.look_at_access()
        line.commit()
        assert difference(tmp_path / "b.db") is None
        agent.barred = ""
        assert line.offer(agent, chain.next()) is TAKEN
        line.commit()
    assert difference(tmp_path / "b.db") == "records, position 2: leaf's index"


def test_a_record_before_the_admission_of_its_agent_is_named(tmp_path):
    """Taken first, and admitted afterwards."""
    path = tmp_path / "b.db"
    with Pipeline(path) as line:
        chain = Chain("gpu-001")
        line.offer(line.agent(chain), chain.next())
        line.commit()
    assert difference(path) is None
    relog(path, first="batch")
    assert difference(path) == "records, position 1: leaf's index"


def test_records_of_an_agent_that_nobody_admitted_are_named(copy):
    rewritten(copy, lambda rows: [r for r in rows if r.access_no not in (7, 11)])
    assert (difference(copy) or "nothing").startswith("access, agent")


def test_a_join_token_may_serve_as_often_as_it_says(tmp_path):
    clock = Clock()
    desk = desk_at(tmp_path, clock)
    token = join_token(desk, uses=2)
    for name in ("gpu-001", "gpu-002"):
        node = Node(Chain(name))
        desk.enrol(node.asks(token, node.csr(desk.ca.trust_domain)))
    assert difference(tmp_path / "b.db") is None
