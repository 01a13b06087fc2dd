"""Why a run is stuck: what its signals and short experiments say of the cause."""
