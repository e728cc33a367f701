"""Models going out: to transformers' classes, to ONNX, and as programs of `torch.export`."""

from perceiver_io.export.onnx import export_onnx
from perceiver_io.export.program import compile_program, export_program, load_program, save_program
from perceiver_io.export.transformers import export_transformers

__all__ = ["compile_program", "export_onnx", "export_program", "export_transformers", "load_program", "save_program"]
