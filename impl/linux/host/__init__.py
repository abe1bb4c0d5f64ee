"""The machine that we run on: its tools, its apt, the cache, directories of running guests. Nothing of a kernel."""
