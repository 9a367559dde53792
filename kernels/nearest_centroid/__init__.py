"""nearest_centroid: which of K centroids is nearest to each point, without the matrix of distances."""

from .op import nearest_centroid

__all__ = ["nearest_centroid"]
