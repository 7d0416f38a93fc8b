"""STPM on MindSpore: unsupervised visual anomaly detection by student-teacher feature pyramid matching.

Wang et al. 2021, arXiv 2103.04257. The project's folder ``src``, and installed the package ``stpm``.
"""

__version__ = "1.0.0"
