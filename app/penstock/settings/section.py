"""What a section of the settings is."""

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """A group of settings; frozen, and closed to names that it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool(cls, value: object, info: ValidationInfo) -> object:
        # pydantic's lax mode, which the environment's texts need, would take YAML's `yes` for 1.
        is_bool = cls.model_fields[str(info.field_name)].annotation in (bool, bool | None)
        if isinstance(value, bool) and not is_bool:
            raise ValueError("is a yes or no where a number, a text or a list is wanted")
        return value
