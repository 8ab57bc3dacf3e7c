"""The magics: `load` and `unload` are what `%load_ext` and `%unload_ext` call."""
