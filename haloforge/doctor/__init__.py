"""`halo-forge doctor`: what a machine has of what a run needs, and how to get the rest."""
