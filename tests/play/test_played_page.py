"""While the demo plays its history, its page is of then: agents report, and every answer says which clock it goes by."""

import json
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flopmeter.collector.web.office import CLOCK_HEADER
from flopmeter.play import cluster as clusters
from flopmeter.play import page, story
from flopmeter.play.cluster import Cluster

DAY_S = 86_400


def overview(cluster: Cluster, token: str) -> tuple[dict[str, Any], str | None]:
    request = urllib.request.Request(
        f"http://{cluster.http_address}/api/v1/overview", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer), answer.headers.get(CLOCK_HEADER)


def test_the_page_is_of_then_until_the_history_has_come_to_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    played = clusters.Agent.play
    asked: list[tuple[dict[str, Any], str | None]] = []
    with Cluster(story.default(days=2, nodes=5), tmp_path, now, "127.0.0.1:0") as cluster:
        token = page.link(cluster.http_address, cluster.store, lambda: cluster.now_unix_ns).partition(
            "token="
        )[2]
        plays = 0

        def play(self: clusters.Agent, hours: range) -> int:
            """In the middle of a chunk: some agents have shipped hours that the others will only come to."""
            nonlocal plays
            plays += 1
            if plays == 13:
                asked.append(overview(cluster, token))
            return played(self, hours)

        monkeypatch.setattr(clusters.Agent, "play", play)
        cluster.history(lambda _: None)
        _, clock = overview(cluster, token)
    ((then, said),) = asked
    assert said is not None
    behind_s = time.time() - datetime.fromisoformat(said).timestamp()
    assert DAY_S < behind_s < 3 * DAY_S
    assert datetime.fromisoformat(then["as_of"]) <= datetime.fromisoformat(said)
    assert then["nodes"]["by_status"] == {"live": 5, "silent": 0, "stopped": 0, "never": 0}
    assert clock is None
