"""All SQL and all connections. One statement per `.sql` file in `sql/`; knows no handlers."""
