"""Armature: the contract, the simulated world, the bridge's wire, episodes and the `armature` command."""

__version__ = "0.1.0"
