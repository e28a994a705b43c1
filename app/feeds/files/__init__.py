"""Candle files: finding them, reading CSV and Parquet into checked rows, putting the rows in time order.

The way of a row: discovery -> columns -> csv_table or parquet_table (values) -> rows -> ordering -> merging.
"""
