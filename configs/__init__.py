"""Numbers and names for every verb, as Hydra YAML."""
