"""What every other part stands on: configuration, seeded randomness, run folders, the console."""
