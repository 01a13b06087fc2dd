"""From files to batches: listing, decoding, splitting, caching, augmenting, loading."""
