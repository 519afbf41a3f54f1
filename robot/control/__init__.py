"""Control and safety maths, the same in simulation and on the arm."""
