"""The built-in training. Every file here is a part of the key of its runs: what no result depends on lies elsewhere."""
