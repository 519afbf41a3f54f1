"""What the demo measured, as rows for the terminal and as one HTML file that needs nothing else."""

import base64
import html
import io
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Results:
    """The JSON files that the five steps wrote, and how long each step took [s]."""

    record: dict[str, Any]
    train: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluation: dict[str, Any]
    deployment: dict[str, Any]
    durations: dict[str, float]

    @classmethod
    def read(cls, out: Path, durations: dict[str, float]) -> "Results":
        """Read what the steps left below `out`."""
        return cls(
            record=json.loads((out / "episodes" / "summary.json").read_text()),
            train=json.loads((out / "policy" / "summary.json").read_text()),
            metrics=[json.loads(line) for line in (out / "policy" / "metrics.jsonl").read_text().splitlines()],
            evaluation=json.loads((out / "policy" / "evaluation.json").read_text()),
            deployment=json.loads((out / "policy" / "deployment.json").read_text()),
            durations=durations,
        )

    def rows(self) -> list[tuple[str, str]]:
        """Name and value, as the table shows them."""
        record, train, evaluation, deployment = self.record, self.train, self.evaluation, self.deployment
        late, commands = deployment["lateness_ms"], deployment["commands"]
        return [
            ("episodes collected", f"{record['episodes']} (of {record['attempts']} tried)"),
            ("training time", f"{minutes(train['wall_s'])} ({train['steps']} steps, {train['parameters']:,} weights)"),
            ("success in simulation", success(evaluation)),
            ("success through the bridge", success(deployment)),
            (
                "control-loop lateness p50 / p99",
                f"{late['p50']:.3f} / {late['p99']:.3f} ms at {late['rate_hz']:.0f} Hz",
            ),
            (
                "chunk inference p50 / p99",
                f"{deployment['inference_ms']['p50']:.1f} / {deployment['inference_ms']['p99']:.1f} ms",
            ),
            (
                "stale / clamped / rejected commands",
                f"{commands['stale']} / {commands['clamped']} / {commands['rejected']}",
            ),
            ("whole demo", minutes(sum(self.durations.values()))),
        ]


def minutes(seconds: float) -> str:
    """A duration as people say it."""
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.1f} s"


def success(result: dict[str, Any]) -> str:
    """Final and sticky success of an evaluation, with the interval."""
    final, sticky = result["success_final"], result["success_sticky"]
    low, high = final["wilson_95"]
    return (
        f"{final['count']} of {result['episodes']} at the end "
        f"({final['rate']:.0%}, 95% interval {low:.0%}-{high:.0%}), {sticky['count']} at any time"
    )


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns between rules, as wide as they need to be."""
    left, right = (max(len(row[side]) for row in rows) for side in (0, 1))
    rule = "-" * (left + right + 3)
    return "\n".join([rule, *(f"{name:<{left}} | {value}" for name, value in rows), rule])


def write_report(results: Results, out: Path) -> Path:
    """Write `out/report.html`: the table, the curves and the videos, all in one file."""
    figures = [_svg(figure) for figure in (_loss_curve(results), _episode_lengths(results), _durations(results))]
    videos = [_video(path) for path in sorted((out / "policy" / "videos").glob("*.mp4"))]
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in results.rows()
    )
    page = _PAGE.format(
        when=time.strftime("%Y-%m-%d %H:%M"),
        machine=html.escape(f"{platform.machine()}, Python {platform.python_version()}"),
        rows=rows,
        figures="".join(f"<figure>{figure}</figure>" for figure in figures),
        videos="".join(videos) or "<p>No video: this machine has no OpenGL library that MuJoCo renders with.</p>",
    )
    path = out / "report.html"
    path.write_text(page)
    return path


def _loss_curve(results: Results) -> Figure:
    figure, axes = plt.subplots(figsize=(6, 3))
    axes.plot([row["step"] for row in results.metrics], [row["loss"] for row in results.metrics], lw=1.2)
    axes.set(xlabel="training step", ylabel="loss", yscale="log", title="Training loss")
    return figure


def _episode_lengths(results: Results) -> Figure:
    """Shares of the successes, not counts: simulation and bridge run different numbers of episodes."""
    figure, axes = plt.subplots(figsize=(6, 3))
    seconds = {
        label: [episode["duration_s"] for episode in result["per_episode"] if episode["success_final"]]
        for label, result in (("simulation", results.evaluation), ("through the bridge", results.deployment))
    }
    longest = max([1.0, *seconds["simulation"], *seconds["through the bridge"]])
    bins = [0.2 * index for index in range(int(longest / 0.2) + 2)]
    for label, values in seconds.items():
        shares = [1 / len(values)] * len(values) if values else None
        axes.hist(values, bins=bins, weights=shares, alpha=0.6, label=f"{label} ({len(values)} successes)")
    axes.set(xlabel="time to success [s]", ylabel="share", title="How long the arm needed")
    axes.legend(loc="upper left")
    return figure


def _durations(results: Results) -> Figure:
    figure, axes = plt.subplots(figsize=(6, 3))
    names, seconds = list(results.durations), list(results.durations.values())
    axes.barh(names, seconds)
    for row, value in enumerate(seconds):
        axes.text(value, row, f" {value:.0f} s", va="center")
    axes.invert_yaxis()
    axes.set(xlabel="wall time [s]", title="Where the time went", xlim=(0, 1.15 * max(seconds)))
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.tight_layout()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]


def _video(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = html.escape(path.stem.replace("_", " "))
    return (
        f'<figure><video controls autoplay loop muted width="256" src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Armature demo</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
  table {{ border-collapse: collapse; }}
  th, td {{ text-align: left; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid #ddd; font-weight: normal; }}
  td {{ font-variant-numeric: tabular-nums; font-weight: 600; }}
  figure {{ display: inline-block; margin: 1rem 1rem 0 0; vertical-align: top; }}
  figure svg {{ width: 34rem; max-width: 100%; height: auto; }}
  figcaption {{ color: #666; font-size: .85rem; }}
</style>
<h1>Demonstrations to a policy on an arm</h1>
<p>Lift with a Panda, state only, {when}, {machine}. Simulated episodes begin from fixed seeds that no demonstration
used; the bridge drives the twin in real time.</p>
<table>{rows}</table>
{figures}
<h2>The policy in simulation</h2>
{videos}
</html>
"""
