"""Test mixins, one for each boundary of `robot.contract`; every implementation runs the one for what it is."""
