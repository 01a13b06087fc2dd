"""``python -m vitreous``: the command of the same name."""

from vitreous.cli import main

main()
