"""`armature dataset validate`: check every row, frame, index and statistic of a dataset."""

import sys
from dataclasses import dataclass
from pathlib import Path

from robot.config import load
from robot.episodes.care.findings import Report
from robot.episodes.care.validation import validate


@dataclass(kw_only=True)
class ValidateConfig:
    """See `configs/dataset_validate.yaml`."""

    dataset: str
    fast: bool


def main(overrides: list[str]) -> int:
    """Run the verb: a line for each finding on standard output; 1 if one is an error."""
    config = load("dataset_validate", ValidateConfig, overrides)
    report = Report(Path(config.dataset))
    try:
        checked = validate(config.dataset, config.fast, report)
    finally:  # after Ctrl-C too
        for finding in report.findings:
            print(finding)
    seen = f"{checked.episodes} episodes, {checked.frames} frames, {checked.pictures} decoded pictures"
    if report.findings:
        counts = f"{len(report.errors)} errors, {len(report.warnings)} warnings"
        print(f"{config.dataset}: {counts} in {seen}.", file=sys.stderr)
    else:
        print(f"{config.dataset}: {seen}: nothing wrong.")
    return 1 if report.errors else 0
