"""Weights in the files of other libraries, one module for each; foreign names live only here."""
