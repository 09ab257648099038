"""The engines that run views: DuckDB, and Spark where one machine is not enough."""
