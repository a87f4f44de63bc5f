"""The two families side by side, on the same data."""
