import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def killed(kills: int, episode_s: float) -> dict[str, float]:
    """What the benchmark prints; in a process of its own, for it forks."""
    command = [sys.executable, "-m", "benchmarks.episode_kills", str(kills), str(episode_s)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250, check=False)
    assert not done.stderr, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {line["name"].removeprefix("episodes: "): line["value"] for line in lines}


@pytest.mark.parametrize(("kills", "episode_s"), [(5, 0.5), pytest.param(30, 1.5, marks=pytest.mark.slow)])
def test_whatever_a_killed_recorder_finished_is_intact_and_the_rest_comes_back(kills, episode_s):
    told = killed(kills, episode_s)
    assert told["recorders killed"] == kills
    assert told["damaged by kill -9"] == 0
    assert told["finished episodes intact after kill -9"] >= 1
    assert told["running episodes recovered after kill -9"] >= kills / 2
    if kills >= 30:
        assert told["worst loss by kill -9"] <= 0.5
