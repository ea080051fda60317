"""The stores that the behavioural suite runs on."""

SERVERS = {  # and who makes their databases
    "postgresql": "postgresql",
    "embedded": "embedded",
    "pgbouncer": "postgresql",
    "mariadb": "mariadb",
}
