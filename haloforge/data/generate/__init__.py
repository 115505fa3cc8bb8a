"""`data generate`: problems with tests and solutions, written by an LLM and kept where they hold."""
