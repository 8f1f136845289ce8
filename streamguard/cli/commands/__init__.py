"""The commands' bodies, one file each, loaded when their command runs; `streamguard.cli` has their signatures."""
