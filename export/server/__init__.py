"""Model repositories for NVIDIA's Triton Inference Server, called the server here: "Triton" alone is the language."""
