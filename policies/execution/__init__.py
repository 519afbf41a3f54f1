"""Ways to play chunks while the next one is still being thought of, as wrappers around any policy."""
