"""Fine-tuning from the simplest way to the costliest, each held against the one before."""
