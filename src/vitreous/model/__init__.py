"""The Vision Transformer: one configuration, one model, its presets and its size in numbers."""
