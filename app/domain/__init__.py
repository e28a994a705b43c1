"""The pure core: values and functions without SQLAlchemy, Celery, Redis or a clock."""
