"""Which demonstrations to learn from: measures of quality, and weights for sampling."""
