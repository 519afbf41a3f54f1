"""Recording, surviving and building: what `make bench-episodes` prints."""

from benchmarks import episode_build, episode_kills, episode_recording


def main() -> None:
    """Each part prints its own lines."""
    for part in (episode_kills, episode_build, episode_recording):
        part.main()


if __name__ == "__main__":
    main()
