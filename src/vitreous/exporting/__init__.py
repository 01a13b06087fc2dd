"""Trained models in the formats of other libraries, one module for each."""
