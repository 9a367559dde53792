"""Where training pictures come from: macro patches of whole pictures, and scenes of an object on a background."""

from .earth import EarthCrops, EarthPanoramas
from .emoji import EmojiScenes
from .folder import ImageFolder
from .macro_patches import MacroPatches, Pictures
from .scenes import FolderScenes, Scene, SceneItems, Scenes
from .sources import open_pictures, open_scenes

__all__ = [
    "EarthCrops",
    "EarthPanoramas",
    "EmojiScenes",
    "FolderScenes",
    "ImageFolder",
    "MacroPatches",
    "Pictures",
    "Scene",
    "SceneItems",
    "Scenes",
    "open_pictures",
    "open_scenes",
]
