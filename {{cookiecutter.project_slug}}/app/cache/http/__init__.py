"""The cache in front of a FastAPI application: what may be cached (`routes`), and what is sent."""
