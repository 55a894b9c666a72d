"""Stands for the process that answers the HTTP port: says back what it was asked, or misbehaves as the path asks it to."""

import json
import os
import sys
import time
from pathlib import Path

from flopmeter.collector.api.question import Answer, answer_bytes, question_of, read_frame

FOLDER = Path(sys.argv[1])


def answer(question):
    last = question.segments[-1]
    if last == "hang" or question.body == b"hang":
        (FOLDER / "hangs").touch()
        time.sleep(3_600)
    if last == "die":
        os._exit(3)
    if last == "garbage":
        sys.stdout.buffer.write(b"\xff" * 64)
        sys.stdout.buffer.flush()
        time.sleep(3_600)
    if last == "large":
        return Answer(200, "application/json", b"[" + b"1," * 2_000_000 + b"1]")
    if last == "gone":
        return Answer(404, "application/problem+json", b'{"status":404}')
    if last == "header":
        return Answer(
            200, "application/json", b"{}", headers={"X-Good": "yes", "X-Bad": "a\r\nSet-Cookie: b=c"}
        )
    if question.segments == ("state",):
        state = FOLDER / f"state{question.tenant.replace(':', '-')}"
        return Answer(200, "application/json", state.read_bytes() if state.exists() else b'{"position":"0"}')
    said = {
        "method": question.method,
        "segments": question.segments,
        "parameters": dict(question.parameters),
        "body": len(question.body),
        "who": question.who,
        "role": question.role,
        "tenant": question.tenant,
        "pid": os.getpid(),
    }
    return Answer(200, "application/json", json.dumps(said).encode(), etag="e1")


def main():
    with (FOLDER / "starts").open("a") as f:
        f.write(f"{os.getpid()}\n")
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        sys.stdout.buffer.write(answer_bytes(answer(question_of(*frame))))
        sys.stdout.buffer.flush()


main()
