"""A run's one page for people: how good, how sure, what goes wrong, how to do it again."""
