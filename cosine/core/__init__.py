"""The algorithm, pure: no I/O, no clock, no dice. Standard library and numpy only."""
