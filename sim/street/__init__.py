"""A school's streets, and the children who walk there with their tags."""
