"""What people look at: a run as one HTML page."""
