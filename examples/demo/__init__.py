"""The main job, end to end, as one command: `make demo`."""
