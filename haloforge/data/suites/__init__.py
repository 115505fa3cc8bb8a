"""Rows of the suites that others know as problems, asked as their authors ask."""
