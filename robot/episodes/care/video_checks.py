"""Whether video files hold a frame at the time of every row, without decoding any."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robot.episodes.care.findings import Report, at, counted, shortened
from robot.episodes.formats.lerobot_files import EpisodePlace, Files, VideoPlace
from robot.episodes.formats.lerobot_pictures import encoded_frames
from robot.errors import DatasetError

GRID_TOLERANCE_S = 1e-4
"""LeRobot refuses frames that are further from their rows (`tolerance_s`)."""
_TODO = "Build or fetch the dataset again, or leave the episode out with `armature dataset split`."


def check(files: Files, report: Report) -> None:
    """Every video file of the dataset."""
    for path, places in _by_file(files):
        try:
            times, _ = encoded_frames(path)
        except DatasetError as error:
            kind = "missing file" if not path.exists() else "unreadable file"
            report.error(kind, report.name(path), shortened(error, path), _TODO)
            continue
        _check_file(files.fps, path, places, times, report)


def _by_file(files: Files) -> Iterator[tuple[Path, list[tuple[EpisodePlace, VideoPlace]]]]:
    found: dict[Path, list[tuple[EpisodePlace, VideoPlace]]] = {}
    for place in files.episodes:
        for video in place.videos.values():
            found.setdefault(video.path, []).append((place, video))
    yield from found.items()


def _check_file(
    fps: float, path: Path, places: list[tuple[EpisodePlace, VideoPlace]], times: np.ndarray, report: Report
) -> None:
    name = report.name(path)
    used = np.zeros(len(times), np.int64)
    wanted = sum(place.length for place, _ in places)
    if len(times) < wanted:
        text = f"{len(times)} frames, but its {len(places)} episodes have {wanted} rows"
        report.error("missing frame", name, text, _TODO)
    end_s, before = 0.0, -1
    for place, video in sorted(places, key=lambda pair: (pair[1].start_s, pair[0].number)):
        _check_span(fps, name, place, video, report)
        if video.start_s < end_s - 0.5 / fps:
            text = f"it begins at {video.start_s:.4f} s, before episode {before} ends at {end_s:.4f} s"
            report.error("shifted frame", at(name, place.number), text, _TODO)
        elif video.start_s > end_s + 0.5 / fps and before >= 0:
            text = f"it begins at {video.start_s:.4f} s, but episode {before} ends at {end_s:.4f} s"
            report.error("shifted frame", at(name, place.number), text, _TODO)
        end_s, before = video.stop_s, place.number
        used += _check_frames(fps, name, place, video, times, report)
    spare = np.flatnonzero(used == 0)
    if len(spare) and len(times) > wanted:
        text = f"{counted(spare)} of the file belong to no episode"
        report.warning("spare frame", name, text, "LeRobot ignores them; `armature dataset merge` drops them.")


def _check_span(fps: float, name: str, place: EpisodePlace, video: VideoPlace, report: Report) -> None:
    frames = (video.stop_s - video.start_s) * fps
    if round(frames) != place.length or not abs(frames - round(frames)) < 0.05:
        text = (
            f"from_timestamp {video.start_s:.4f} s to to_timestamp {video.stop_s:.4f} s is {frames:.2f} frames, "
            f"the episode has {place.length} rows"
        )
        report.error("missing frame" if frames < place.length else "shifted frame", at(name, place.number), text, _TODO)
    offset = video.start_s * fps
    if abs(offset - round(offset)) > 0.05:
        text = f"from_timestamp {video.start_s:.5f} s is between the frames {int(offset)} and {int(offset) + 1}"
        report.error("shifted frame", at(name, place.number), text, _TODO)


def _check_frames(
    fps: float, name: str, place: EpisodePlace, video: VideoPlace, times: np.ndarray, report: Report
) -> np.ndarray:
    """How often each frame of the file is used by the episode."""
    used = np.zeros(len(times), np.int64)
    wanted = video.start_s + np.arange(place.length) / fps
    if not len(times):
        return used
    right = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    right = np.minimum(right, len(times) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(times[left] - wanted) <= np.abs(times[right] - wanted), left, right)
    off = np.abs(times[nearest] - wanted)
    absent = np.flatnonzero(~(off * fps < 0.25))
    if len(absent):
        text = f"the file has no frame at {wanted[absent[0]]:.4f} s; missing: {counted(absent)}"
        report.error("missing frame", at(name, place.number, int(absent[0])), text, _TODO)
    shifted = np.flatnonzero((off * fps < 0.25) & ~(off <= GRID_TOLERANCE_S))
    if len(shifted):
        text = (
            f"the frame is at {times[nearest[shifted[0]]]:.5f} s, its row at {wanted[shifted[0]]:.5f} s; off the grid: "
            f"{counted(shifted)}"
        )
        report.error("shifted frame", at(name, place.number, int(shifted[0])), text, _TODO)
    used[nearest[off * fps < 0.25]] = 1
    return used
