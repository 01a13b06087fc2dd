"""Which labels are probably wrong, shown so that a person can decide about each.

`audit` finds them by a run's folds, `page` shows them, `visit` is the whole of it. Neither labels
nor pictures are ever changed: what a person decides goes into an overlay.
"""
