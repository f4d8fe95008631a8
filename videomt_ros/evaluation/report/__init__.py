"""Reports for people: the page of an evaluation, its charts and pictures, and demo tables."""
