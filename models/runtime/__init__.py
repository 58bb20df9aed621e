"""What the engines of all model families share at run time: dtypes, CUDA graphs, chunks of long input, progress."""
