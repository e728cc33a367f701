"""Package metadata; tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    source = (ROOT / "perceiver_io" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    assert match, "perceiver_io/version.py defines __version__"
    return match.group(1)


# Folders of the checkout that become part of the package, and which of their files.
DATA = {
    "perceiver_io.pytorch_checkpoints": (
        "pytorch_checkpoints",
        ["README.md", "tiny-*/*.json", "tiny-*/model.safetensors"],
    ),
    "perceiver_io.samples": ("examples/samples", ["README.md", "*.flo", "*.jpg", "*.mp4", "*.png", "*.txt"]),
}

EXTRAS = {
    # What the example scripts need beyond the library: pictures, video files, progress bars.
    "examples": ["pillow>=10", "av>=12", "matplotlib>=3.8", "tqdm>=4.60"],
    # `perceiver-io download --google-drive`.
    "download": ["gdown>=6.5.1"],
    # `perceiver-io download --from hub`, from_pretrained and push_to_hub.
    "hub": ["huggingface_hub>=0.30"],
    # Texts in Parquet files, as C4 and Wikipedia come in.
    "parquet": ["pyarrow>=15"],
    # Data sets of Hugging Face, saved or by name.
    "datasets": ["datasets>=3"],
    # `perceiver-io train --wandb PROJECT`.
    "wandb": ["wandb>=0.31"],
    # `perceiver-io train image_classification --jpeg-decoder simplejpeg`.
    "fast-jpeg": ["simplejpeg>=1.7"],
    # `perceiver-io export --to onnx`, and running what it wrote.
    "onnx": ["onnxscript>=0.5", "onnxruntime>=1.20"],
    # perceiver_io.quantization.
    "int8": ["torchao>=0.15"],
    # Running DeepMind's own code beside ours (conversion/verify_against_jax.py), and optax's LAMB.
    "parity": ["jax>=0.4.30", "dm-haiku>=0.0.12", "einops>=0.6", "optax>=0.2"],
    # transformers itself, beside ours: the tests of taking in its models and of writing them, which need none of it.
    "transformers": ["transformers>=5"],
}
# What training scripts need besides: curves, and the digits that the tiny classifier learns from.
EXTRAS["train"] = [*EXTRAS["examples"], "scikit-learn>=1.4", "tensorboard>=2.16"]
# What `perceiver-io evaluate` needs besides: metrics, and a reader of the table of classes in ImageNet's kit.
EXTRAS["evaluate"] = [*EXTRAS["examples"], "torchmetrics>=1.4", "scipy>=1.10"]
EXTRAS["docs"] = ["mkdocs-material>=9.5", "mkdocstrings-python>=1.10"]
EXTRAS["dev"] = [
    *EXTRAS["train"],
    *EXTRAS["evaluate"],
    "beartype>=0.18",
    "hypothesis>=6.100",
    "mypy>=1.10",
    "opencv-python-headless>=4.9",  # the oracle for our resizing; the library itself does not use it
    "perceiver-pytorch>=0.11",  # the oracle for perceiver_io.compat.perceiver_pytorch, which needs none of it
    *EXTRAS["parquet"],
    *EXTRAS["datasets"],
    *EXTRAS["fast-jpeg"],
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.5",
    # The oracles of moving over: transformers' own classes, onnxruntime, a local hub, adapters of peft.
    *EXTRAS["transformers"],
    *EXTRAS["hub"],
    *EXTRAS["onnx"],
    "peft>=0.15",
]

setup(
    name="perceiver-io-torch",  # "perceiver-io" is another project; the import is perceiver_io
    version=version(),
    description="Perceiver IO in PyTorch: a faithful port of DeepMind's Haiku implementation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["perceiver_io", "perceiver_io.*"]), *DATA],
    # Where perceiver_io/weights/locations.py finds them in an installed package.
    package_dir={name: folder for name, (folder, _) in DATA.items()},
    package_data={
        "perceiver_io": ["py.typed", "commands/*.html", "processors/*.txt"],
        **{name: files for name, (_, files) in DATA.items()},
    },
    entry_points={"console_scripts": ["perceiver-io = perceiver_io.commands.cli:main"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.5",
        "numpy>=1.24",
        "safetensors>=0.4",
        "einops>=0.8",
        "jaxtyping>=0.2.30",
    ],
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
