"""The cache beside SQLAlchemy: what statements read and change, and the fence of a COMMIT."""
