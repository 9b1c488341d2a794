"""Execute runs: examples concurrently over the whole matrix, each under its own recorder."""
