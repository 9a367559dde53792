"""Model repositories for NVIDIA's Triton Inference Server. "Triton" alone is the language of kernels in this package."""
