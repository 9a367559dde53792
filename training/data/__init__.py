"""Where training pictures come from, and how macro patches are drawn from them."""

from .earth import EarthCrops, EarthPanoramas
from .folder import ImageFolder
from .macro_patches import MacroPatches, Pictures
from .sources import open_pictures

__all__ = ["EarthCrops", "EarthPanoramas", "ImageFolder", "MacroPatches", "Pictures", "open_pictures"]
