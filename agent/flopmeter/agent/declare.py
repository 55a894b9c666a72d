"""For training code: say what it trains, to the agent of this node, if there is one (docs/declare.md).

    from flopmeter.agent.declare import declare

    declare(run="llama-70b", dtype="bf16", parameters=70_000_000_000)
    for step, batch in enumerate(loader):
        ...
        declare(tokens=step * tokens_per_step)      # as often as you like

The standard library alone. It never raises, never waits and never opens a connection: one datagram to a socket on this
node, at most one every 10 s; where nobody listens, or the socket is full, it is left out. What is declared is a claim: it
names the run and is held against the counters, and no total follows from it.
"""

import json
import os
import socket
import time
from numbers import Integral
from typing import Any

#: Where the agent listens (its setting `declare-socket`); the variable names another place.
SOCKET = "/run/flopmeter-agent/declare.sock"
SOCKET_VARIABLE = "FLOPMETER_DECLARE_SOCKET"
#: One datagram at most this often; at once, but for one a second, where something other than a count is new.
PERIOD_S = 10.0
NEWS_PERIOD_S = 1.0


def declare(
    *,
    run: str | None = None,
    dtype: str | None = None,
    purpose: str | None = None,
    tokens: int | None = None,
    parameters: int | None = None,
    flop_per_token: int | None = None,
    ranks: int | None = None,
    at_once: bool = False,
) -> bool:
    """Say what is given; what is not given stays as it was said before. True: a datagram was handed over.

    `run`: the training run, the same at every restart. `dtype`: bf16, fp8, nvfp4, … `purpose`: pretraining, finetuning, rl,
    … `tokens`: trained on so far by the whole run; or, with `ranks` = n, by n processes since they began (1: this
    one). `parameters`: active per token. `flop_per_token`: forward and backward, where 6 x parameters is not right.
    `at_once`: not to be put off, as for the last word before the end.
    """
    try:
        return _said.say(
            {"run": run, "dtype": dtype, "purpose": purpose},
            {"tokens": tokens, "parameters": parameters, "flop_per_token": flop_per_token, "ranks": ranks},
            at_once=at_once,
        )
    except Exception:  # noqa: BLE001 - training goes on, whatever this is
        return False


class _Said:
    """All that this process has said, and when it was last sent. No lock: a lost race is a datagram more or less."""

    def __init__(self) -> None:
        self._values: dict[str, str | int] = {}
        self._socket: socket.socket | None = None
        self._tried_s = 0.0
        self._news = False

    def say(self, texts: dict[str, Any], numbers: dict[str, Any], *, at_once: bool) -> bool:
        values = self._values
        for name, value in texts.items():
            if isinstance(value, str) and values.get(name) != value:
                values[name] = value
                self._news = True
        for name, value in numbers.items():
            if isinstance(value, (int, float, Integral)):  # no tensor: to look into one may wait for the GPU
                values[name] = int(value)
        now_s = time.monotonic()
        wait_s = 0.0 if at_once else NEWS_PERIOD_S if self._news else PERIOD_S
        if self._tried_s and now_s - self._tried_s < wait_s:
            return False
        self._tried_s = now_s
        self._send(json.dumps({"v": 1, **values}, separators=(",", ":")).encode())
        self._news = False
        return True

    def _send(self, datagram: bytes) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.sendto(datagram, os.environ.get(SOCKET_VARIABLE) or SOCKET)


_said = _Said()
