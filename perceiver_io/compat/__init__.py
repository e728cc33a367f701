"""The calls of other packages as typed there, on this library's modules; a module per package."""
