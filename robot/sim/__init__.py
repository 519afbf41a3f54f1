"""The simulated world: robosuite tasks behind the Gymnasium API, stepped by compiled code."""
