"""All checks of a dataset, one after the other; whatever can still be checked after an error is."""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from robot.episodes.care import file_checks, picture_checks, statistics_checks, table_checks, value_checks, video_checks
from robot.episodes.care.findings import Report, shortened
from robot.episodes.care.table_checks import EpisodeRows
from robot.episodes.formats.image_statistics import Histogram
from robot.episodes.formats.lerobot_dataset import as_statistics, is_plausible
from robot.episodes.formats.lerobot_files import INFO, STATS, Files, counter_differences, opened, read_info, read_json
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_schema import Meaning, meaning
from robot.errors import DatasetError

_AGAIN = "Build or fetch the dataset again."
_PICTURES = 0.05


@dataclass(frozen=True)
class Checked:
    """What `validate` went through.

    Attributes:
        report: What is wrong.
        episodes: Episodes whose rows were read.
        frames: Their rows.
        pictures: Pictures that were decoded; 0 where it went fast.
    """

    report: Report
    episodes: int
    frames: int
    pictures: int


def validate(root: str | Path, is_fast: bool = False, report: Report | None = None) -> Checked:
    """Check a dataset as a whole.

    Vectors of all rows are in memory at once, pictures one at a time.

    Args:
        root: Folder of a LeRobotDataset v3, ours or foreign.
        is_fast: Decode no pictures and hash no files.
        report: What findings are added to as they are made; left out: a new one.

    Raises:
        DatasetError: The folder is no LeRobotDataset v3 at all.
    """
    root = Path(root)
    read_info(root)
    report = Report(root) if report is None else report
    try:
        files = Files.read(root)
        if not files.episodes:
            raise DatasetError(f"{root} holds no episodes.")
    except DatasetError as error:
        report.error("unreadable meta", "meta", shortened(error), _AGAIN)
        return Checked(report, 0, 0, 0)
    for line in counter_differences(files):
        report.error("counter", INFO, line, _AGAIN)
    table_checks.check_order(files, report)
    file_checks.check_missing(files, report)
    file_checks.check_leftovers(files, report)
    file_checks.check_written(files, report, is_fast)
    file_checks.check_origins(files, report)
    video_checks.check(files, report)
    found = _meaning(files, report)
    if found is None:
        return Checked(report, 0, 0, 0)
    bar = tqdm(total=len(files.episodes), desc="rows", unit="episode", leave=False)
    with bar:
        rows = []
        for episode in table_checks.episodes(files, found, report):
            rows.append(episode)
            bar.update()
    value_checks.check(rows, found.schema, files.fps, report)
    statistics_checks.check(files, found, rows, report)
    frames = sum(episode.place.length for episode in rows)
    pictures = 0 if is_fast or not found.schema.pictures else _check_pictures(files, rows, report)
    return Checked(report, len(rows), frames, pictures)


def _meaning(files: Files, report: Report) -> Meaning | None:
    """From the first data file that can be opened."""
    failures = []
    for path in files.data_files:
        try:
            stored = opened(path).schema_arrow
        except DatasetError as error:
            failures.append((report.name(path), shortened(error, path)))
            continue
        try:
            found = meaning(files, stored)
        except DatasetError as error:
            report.error("specs", "meta", shortened(error), _AGAIN)
            return None
        for name, why in found.left_out.items():
            report.warning("not read", INFO, f"feature {name!r} is left out: {why}", "Armature does not use it.")
        return found
    for name, text in failures:  # elsewhere they are told when rows are read
        report.error("unreadable file", name, text, _AGAIN)
    return None


def _check_pictures(files: Files, rows: list[EpisodeRows], report: Report) -> int:
    try:
        source = LeRobotSource.of(files)
    except DatasetError as error:
        report.error("specs", "meta", shortened(error), _AGAIN)
        return 0
    total = len(files.episodes) * len(source.schema.pictures)
    with tqdm(total=total, desc="pictures", unit="video", leave=False) as bar:
        sampled = picture_checks.check(source, {episode.place.number: episode for episode in rows}, report, bar.update)
    _check_statistics(source, sampled, report)
    return sum(place.length for place in files.episodes) * len(source.schema.pictures)


def _check_statistics(source: LeRobotSource, sampled: dict[str, Histogram], report: Report) -> None:
    """Statistics of pictures: the mean, which sampling and encoding change little; of LeRobot's deviation whether it
    is possible at all.
    """
    if not (source.files.root / STATS).exists():
        return
    try:
        stored = read_json(source.files.root / STATS)
    except DatasetError:
        return  # told with the statistics of the rows
    todo = "Build the dataset again; encoders that scale by statistics would see wrong colours."
    for key, histogram in sampled.items():
        found = as_statistics(stored.get(source.stored[key]), (3, 1, 1))
        if not found:
            report.warning("statistics", STATS, f"there are none of {key!r} for three colours", todo)
            continue
        if not histogram.frames:
            continue
        computed = histogram.statistics()["mean"]
        if not (abs(found["mean"] - computed) <= _PICTURES).all():
            text = f"mean of {key!r} is {found['mean'].ravel().round(3).tolist()}, the pictures have "
            report.error("statistics", STATS, text + f"{computed.ravel().round(3).tolist()}", todo)
        if not is_plausible(found):
            text = f"std of {key!r} is {found['std'].ravel().round(4).tolist()}, less than its quantiles allow"
            text += "" if source.files.is_ours else " (LeRobot 0.4 squares pictures as uint8, which overflows)"
            note = report.error if source.files.is_ours else report.warning
            note("statistics", STATS, text, "Do not scale pictures by it; Armature leaves it out.")
