"""What runs from an option file to an end: trainings and tests."""
