"""Episodes (MCAP logs of what happened) and datasets (LeRobotDataset v3 made from them)."""
