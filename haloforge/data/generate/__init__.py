"""`data generate`: problems with tests and solutions, by an LLM, kept where they hold."""
