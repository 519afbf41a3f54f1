"""The wire between a bridge and its clients: frames, schema, client."""
