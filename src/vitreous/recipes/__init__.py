"""Functions that choose every setting of a run from a few facts about the pictures."""
