"""URLs of stores: what is tried with them."""

from hypothesis import strategies as st

PG, MY, MA, MS = "jdbc:postgresql://h/d", "jdbc:mysql://h/d", "jdbc:mariadb://h/d", "jdbc:sqlserver://h;databaseName=d"
# What may stand in a user, a password and the name of a database.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
visible = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)
databases = visible.filter(lambda name: name and "/" not in name and name.isprintable())
