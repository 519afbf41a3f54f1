"""Batches for training: decoded frames in memory maps, windows over episodes, mixtures, worker processes."""
