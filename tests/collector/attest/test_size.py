"""The size of a run costs disk, not memory: what makes an attestation holds no more than a block of its records."""

import tracemalloc

from attest_books import LAWS, TRAINING, attest, members, take
from builders import WINDOW_NS, Chain, busy
from duty_books import opened

from flopmeter.collector.attest import create


def peak_bytes(path, output):
    tracemalloc.start()
    try:
        attest(path, "auditor", output)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_five_times_the_records_take_hardly_more_memory(tmp_path, monkeypatch):
    # The verifier has bounds of its own: it adds up some thousand records at a time.
    monkeypatch.setattr(create, "check_file", lambda *_: None)
    path, few, many = tmp_path / "books.sqlite", 200, 1_000
    rows = [busy(i) for i in range(16)]
    with opened(path, *LAWS) as desk:
        chain = Chain("gpu-1", gpus=16)
        chain.unix_ns = desk.now - (many + 2) * WINDOW_NS
        agent = desk.agent(chain)
        size = 0
        for n in range(many):
            raw = chain.next(rows, (TRAINING,))
            size += len(raw)
            take(desk, agent, raw)
            if n % 100 == 99:
                desk.commit()
            if n == few - 1:
                attest(path, "auditor", tmp_path / "warm.zip")  # what is imported and cached once
                small = peak_bytes(path, tmp_path / "few.zip")
        large = peak_bytes(path, tmp_path / "many.zip")
    assert len(members(tmp_path / "many.zip")["pack/records.bin"]) == size + 4 * many
    # 800 records more; held, they would be more than their bytes.
    assert large - small < size // 2
    print(small, large, size)
