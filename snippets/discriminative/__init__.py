"""Models of p(y | x): the boundary between things."""
