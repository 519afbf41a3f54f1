"""Cameras as the command line makes them, for tests."""

from typing import Any

from hardware.cameras.config import FakeConfig, OpencvConfig

SMALL = {"width": 160, "height": 120, "fps": 100.0, "encoding": "jpeg", "quality": 90}


def fake(**changed: Any) -> FakeConfig:
    return FakeConfig(**{"driver": "fake", "shows": "pattern", "lag_s": 0.0, **SMALL, **changed})


def opencv(device: str, **changed: Any) -> OpencvConfig:
    return OpencvConfig(**{"driver": "opencv", "device": device, **SMALL, **changed})
