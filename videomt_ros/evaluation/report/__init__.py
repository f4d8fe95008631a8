"""Pages, charts and pictures that tell what was found."""
