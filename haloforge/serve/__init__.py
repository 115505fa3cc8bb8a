"""The trained model behind Ray Serve's OpenAI-compatible app."""
