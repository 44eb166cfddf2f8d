"""Messages between processes, and a barrier that names who did not come."""

import json
import socket
from pathlib import Path

from processes import Job


def test_two_processes_talk(tmp_path):
    job = Job([Path(__file__).parent / "talk.py"], tmp_path, hosts=2, devices=2)
    try:
        assert job.codes() == [0, 0], job.text()
    finally:
        job.kill()
    heard = [
        json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))
        for log in job.logs
    ]
    host = socket.gethostname()
    assert heard[0].pop("missing") == (
        f"process 0 on {host} waited 1 s at 'the bridge' for process 1 on {host}."
    )
    assert heard[0] == heard[1]
    assert heard[0] == {
        "table": 2,
        "gathered": [{"process": 0}, {"process": 1}],
        "again": [0, -1],
        "told": "from 0",
        "added": {"big": [3.0, 3e-17], "one": 1.0},
        "once": {"big": [1.0, 1e-17], "one": 0.0},
    }
