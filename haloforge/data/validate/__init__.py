"""Checks of rows before anyone trains on them: `halo-forge data validate`."""
