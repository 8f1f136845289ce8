"""What makes parts of the documentation: a picture, the reference, the site's texts. `make docs` runs all of it."""
