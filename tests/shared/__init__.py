"""A package, so that its tests may have the same names as those of the lessons."""
