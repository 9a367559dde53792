from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Config"]


class Config(BaseModel):
    """A Tiny."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(16, ge=4, le=64, description="Side of an image in pixels.")
    latent: int = Field(4, ge=1, le=64, description="Length of the latent.")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.side, self.side
