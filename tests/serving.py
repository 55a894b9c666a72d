"""Shared by the server's tests: a collector's settings, its clock, and what it has stored."""

import urllib.error
import urllib.request

from builders import UNIX_NS

from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.store.reading import open_for_reading
from flopmeter.wire.v1 import ingest_pb2

NOW = UNIX_NS + 86_400 * 10**9
Refusal, Pushback = ingest_pb2.Refusal, ingest_pb2.Pushback


def settings_for(tmp_path, **more):
    values = {"store": tmp_path / "b.db", "listen": "127.0.0.1:0", "http": "127.0.0.1:0", "admit_new": True}
    return CollectorSettings(**{**values, "linger_ms": 5, **more})


def stored(running):
    connection = open_for_reading(running.store_path)
    try:
        return [s for (s,) in connection.execute("SELECT seq FROM records ORDER BY position")]
    finally:
        connection.close()


def http_status(running, path):
    try:
        with urllib.request.urlopen(f"http://{running.http_address}{path}", timeout=60) as r:
            return r.status
    except urllib.error.HTTPError as e:
        e.close()
        return e.code
