"""The streets round a school, and the children who walk there with their tags."""
