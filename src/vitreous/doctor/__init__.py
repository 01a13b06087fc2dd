"""What is wrong with a folder or table of pictures, before anything is learned from it.

`checkup` is the whole visit. It reads pictures and writes nothing beside them.
"""
