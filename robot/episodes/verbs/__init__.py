"""What a person does to recorded episodes: list, show, label, discard, recover, replay."""
