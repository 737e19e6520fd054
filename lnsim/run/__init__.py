"""A run of a scenario: built, driven, checked, and told about; the same in every mode."""
