"""Store URLs: ``store_url.py`` parses them; ``jdbc.py`` and ``jdbc_parameters.py`` translate the Java service's."""
