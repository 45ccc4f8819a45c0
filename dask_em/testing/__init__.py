"""The laws of sources and backends as test classes, to be inherited by whoever writes one."""
