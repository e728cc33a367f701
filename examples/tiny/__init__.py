"""The small models that come with the library: sizes, recipes, toy data, and starts from which they learn soon."""
