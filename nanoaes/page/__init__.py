"""What people look at: pages of a run, of a list of critiques, of scored pictures."""
