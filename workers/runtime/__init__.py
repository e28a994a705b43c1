"""What a job runs in: its window of candles, its strategy, its limits. No Celery in here."""
