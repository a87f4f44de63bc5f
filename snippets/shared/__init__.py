"""What three pages or more use: data, plots, metrics."""
