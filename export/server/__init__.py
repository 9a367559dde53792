"""Model repositories for Triton Inference Server. "Triton" alone is the language of kernels in this package."""
