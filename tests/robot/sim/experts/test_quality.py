import numpy as np
import pytest

from robot.episodes import folder
from robot.episodes.episode import Episode
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.record import main


@pytest.mark.slow
def test_qualities_are_recorded_as_a_user_types_them(tmp_path) -> None:
    found: dict[str, list[Episode]] = {}
    for quality, more in (("clean", []), ("noisy", []), ("failing", ["keep=all"])):
        assert main(["env=stack", f"quality={quality}", "episodes=6", f"out={tmp_path / quality}", *more]) == 0
        found[quality] = [EpisodeReader(path).read() for path in folder.finished(tmp_path / quality)]
        assert {episode.header.quality for episode in found[quality]} == {quality}
    for quality, episodes in found.items():
        pairs = [[one.channels[f"/action/{stage}"].values for stage in ("device", "commanded")] for one in episodes]
        as_asked = [np.array_equal(*pair) for pair in pairs]
        assert as_asked == [quality != "noisy"] * 6
        assert sum(one.result.success_final for one in episodes) == 6 or quality == "failing"
    assert sum(one.result.success_final for one in found["failing"]) <= 2
