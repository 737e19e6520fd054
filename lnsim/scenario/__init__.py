"""A scenario: one YAML file making one claim, as frozen values."""
