"""Formats of datasets, read without the libraries that define them: LeRobot v3, robomimic HDF5, RLDS."""
