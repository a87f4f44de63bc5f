"""Models of p(x) or p(x, y): the density of things."""
