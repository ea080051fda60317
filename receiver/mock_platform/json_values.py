"""The types of JSON values: what is parsed or sent may hold anything, and checks send wrong values on purpose."""

from typing import Any

JSON = Any
JSONObject = dict[str, Any]
