"""Cameras: drivers, a ring of pictures in shared memory, one process each, and the fleet of them behind a bridge."""
