"""Devices: drivers, the real-time process and the gateway in front of it."""
