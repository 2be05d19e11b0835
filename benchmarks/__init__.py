"""What the service costs, as ratios to the same work without it. Never part of a test."""
