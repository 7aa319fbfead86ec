"""Distribution of mrda; the version is in mrda_utils/__init__.py, tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).resolve().parent
version = re.search(r'__version__ = "(.+?)"', (here / "mrda_utils/__init__.py").read_text(encoding="utf-8"))[1]

# BasicSR's own setup.py fails on Python 3.13 and later: a clone has what packs the same release without it. What is
# installed elsewhere, a wheel made from the sdist, cannot name a folder
clone = here / "third_party/basicsr"
basicsr = f"basicsr @ {clone.as_uri()}" if clone.is_dir() else "basicsr==1.4.2"

setup(
    name="mrda",
    version=version,
    description="Blind super-resolution with meta-learned degradation representations (MRDA, TIP 2023) on BasicSR",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "CITATION.cff"],
    python_requires=">=3.10,<3.15",
    packages=[*find_packages(include=["mrda_*"]), "mrda_weights"],
    package_dir={"mrda_weights": "weights"},
    package_data={
        "mrda_data": ["protocols.yml"],
        "mrda_eval": ["index.html.j2"],
        "mrda_inference.web": ["page.html", "static/*"],
        "mrda_weights": ["*.safetensors", "README.md"],
    },
    entry_points={
        "console_scripts": ["mrda-upscale=mrda_inference.command_line:main", "mrda-web=mrda_inference.web:main"]
    },
    install_requires=[
        basicsr,
        "filelock",
        "imagecodecs",  # what tifffile decompresses with
        "jinja2",
        "lmdb>=3",  # 1.6 dies of a damaged data.mdb (SIGBUS)
        "lpips",
        "numpy",
        "opencv-python>=5",  # 4.x decodes half of a truncated JPEG and says nothing
        "pillow>=10.1",
        "pydantic>=2.11",
        "pyyaml",
        "safetensors",
        "scikit-image",  # photographs for the demo and the tests
        "scikit-learn",  # the same
        "scipy>=1.15",  # bootstrap takes rng
        "setuptools<82",  # tb-nightly imports pkg_resources, which 82 no longer has
        "tabulate",
        "tb-nightly",
        "tifffile",
        "torch>=2.6",  # before it, weights_only=True could be made to run code (CVE-2025-32434)
        "torchvision",
        "tqdm",
    ],
    extras_require={
        "browser": [
            "selenium",
            "starlette",
            "uvicorn",
        ],  # tests that drive the pages; they need chromium and its driver too
        "heif": ["pillow>=11.3", "pillow-heif>=1"],  # photographs of phones: HEIC, AVIF
        "ncnn": ["onnx", "pnnx"],  # export_onnx.py --ncnn
        "onnx": ["onnx", "onnxruntime"],
        "openvino": ["onnx", "openvino>=2024"],
        "plots": ["matplotlib"],
        "test": [
            "hypothesis",
            "jsonschema>=4.18",
            "matplotlib",
            "ncnn",
            "onnx",
            "onnxruntime",
            "openvino>=2024",
            "pnnx",
            "pytest>=8",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "spandrel",
            "starlette",
            "uvicorn",
        ],
        "web": ["starlette", "uvicorn"],  # the page that mrda-web serves
    },
    classifiers=[
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
