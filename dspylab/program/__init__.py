"""The user's code and data: the program's factory, metric callables, adapters, loaders, dataset files."""
