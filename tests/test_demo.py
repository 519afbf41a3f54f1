"""The demo's report, from results as the verbs write them."""

from pathlib import Path
from typing import Any

import pytest

from examples.demo.report import Results, minutes, table, write_report


def outcome(successes: int, episodes: int) -> dict[str, Any]:
    rate = {"count": successes, "rate": successes / episodes, "wilson_95": [0.1, 0.9]}
    return {
        "episodes": episodes,
        "success_final": rate,
        "success_sticky": rate,
        "inference_ms": {"p50": 12.0, "p99": 34.0},
        "per_episode": [{"duration_s": 2.0 + k, "success_final": k < successes} for k in range(episodes)],
    }


def results(successes: int) -> Results:
    deployment = {
        **outcome(successes, 4),
        "lateness_ms": {"p50": 0.08, "p99": 0.7, "rate_hz": 500.0},
        "commands": {"stale": 1, "clamped": 2, "rejected": 3},
    }
    return Results(
        record={"episodes": 5, "attempts": 6},
        train={"wall_s": 61.0, "steps": 100, "parameters": 1234},
        metrics=[{"step": 50, "loss": 0.5}, {"step": 100, "loss": 0.1}],
        evaluation=outcome(successes, 4),
        deployment=deployment,
        durations={"record": 10.0, "train": 61.0},
    )


def test_the_table_holds_every_figure() -> None:
    text = table(results(3).rows())
    for figure in ("5 (of 6 tried)", "1 min 1 s", "3 of 4", "10%-90%", "0.080 / 0.700 ms at 500 Hz", "1 / 2 / 3"):
        assert figure in text
    assert "1 min 11 s" in text


@pytest.mark.parametrize("successes", [0, 3])
def test_the_report_is_one_file_without_links(successes: int, tmp_path: Path) -> None:
    page = write_report(results(successes), tmp_path).read_text()
    assert page.count("<svg") == 3
    assert "No video" in page
    assert "src=" not in page
    (tmp_path / "policy" / "videos").mkdir(parents=True)
    (tmp_path / "policy" / "videos" / "episode_1.mp4").write_bytes(b"film")
    page = write_report(results(successes), tmp_path).read_text()
    assert "data:video/mp4;base64,ZmlsbQ==" in page
    assert "<figcaption>episode 1</figcaption>" in page


def test_durations_are_said_as_people_say_them() -> None:
    assert [minutes(value) for value in (5.04, 60.0, 259.6)] == ["5.0 s", "1 min 0 s", "4 min 20 s"]
