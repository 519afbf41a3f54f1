"""Compiled: what runs at every physics substep, and observations.

MuJoCo's C functions are called by their integer addresses, which arrive as data. That keeps numba's on-disk cache
usable; ctypes functions as globals would defeat it and cost a compilation in every process. All state lives in two
records (`robot.sim.compiled.records`), so that a call passes two pointers and one compilation serves every robot,
controller and task.
"""
