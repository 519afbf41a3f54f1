"""Every head by name: what `policy=` selects, and what a checkpoint names."""

from policies.act import ACTConfig
from policies.base import HeadConfig
from policies.diffusion import DiffusionConfig

HEADS: dict[str, type[HeadConfig]] = {"act": ACTConfig, "diffusion": DiffusionConfig}
"""Name to config; the config builds the head."""


def name_of(config: HeadConfig) -> str:
    """The name under which a config is registered."""
    return next(name for name, schema in HEADS.items() if schema is type(config))
