"""`armature doctor`: what this machine brings for a real-time bridge, a line each, and what to change."""
