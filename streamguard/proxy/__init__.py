"""The guard as an HTTP hop: `streamguard proxy`, for clients that cannot import Python."""
