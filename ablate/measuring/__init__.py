"""What is measured of training and of machines. No result of a run depends on it, so it is no part of a run's key."""
