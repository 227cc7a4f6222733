"""The `sql` domain: seeded schemas with inserts, queries and JSON rows. The same seed writes the same document."""

import json
from random import Random
from typing import Any

TABLES = (
    "users", "orders", "products", "invoices", "payments", "shipments", "customers", "employees", "departments",
    "reviews", "sessions", "tickets", "suppliers", "categories", "warehouses", "accounts",
)  # fmt: skip
COLUMNS: dict[str, str] = {
    "name": "TEXT NOT NULL", "email": "TEXT UNIQUE", "status": "TEXT DEFAULT 'new'", "city": "TEXT",
    "country": "TEXT", "price": "NUMERIC(10, 2)", "quantity": "INTEGER NOT NULL", "rating": "INTEGER",
    "created_at": "TIMESTAMP NOT NULL", "updated_at": "TIMESTAMP", "active": "BOOLEAN DEFAULT TRUE",
    "total": "NUMERIC(12, 2)", "discount": "NUMERIC(4, 2)", "title": "TEXT NOT NULL", "weight": "REAL",
}  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "name": ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj"),
    "status": ("new", "paid", "sent", "closed", "failed", "pending"),
    "city": ("Berlin", "Oslo", "Lima", "Kyoto", "Cairo", "Quito", "Porto", "Turin", "Lagos", "Hanoi"),
    "country": ("DE", "NO", "PE", "JP", "EG", "EC", "PT", "IT", "NG", "VN"),
    "title": ("red lamp", "oak table", "steel pan", "wool scarf", "desk fan", "tea pot", "blue mug", "rain coat"),
}
STATEMENTS_PER_DOCUMENT = 16

Schema = dict[str, list[str]]


def write_document(seed: int) -> str:
    """One script over one schema of three tables, about 1,500 tokens long."""
    dice = Random(f"sql-{seed}")
    names = dice.sample(TABLES, 3)
    schema = {name: dice.sample(list(COLUMNS), dice.randint(3, 5)) for name in names}
    parts = [_create(name, schema, names, dice) for name in names]
    writers = (_insert, _insert, _select, _select, _join, _group, _update, _delete, _rows_as_json, _index)
    parts += [dice.choice(writers)(schema, dice) for _ in range(STATEMENTS_PER_DOCUMENT)]
    return "\n\n".join(parts) + "\n"


def _create(name: str, schema: Schema, names: list[str], dice: Random) -> str:
    lines = ["    id INTEGER PRIMARY KEY"] + [f"    {column} {COLUMNS[column]}" for column in schema[name]]
    if name != names[0]:
        lines.append(f"    {names[0][:-1]}_id INTEGER REFERENCES {names[0]} (id)")
    return f"CREATE TABLE {name} (\n" + ",\n".join(lines) + "\n);"


def _value(column: str, dice: Random) -> Any:
    if column in WORDS:
        return dice.choice(WORDS[column])
    if column == "email":
        return f"{dice.choice(WORDS['name'])}@example.{dice.choice(('com', 'org', 'net'))}"
    if column in ("created_at", "updated_at"):
        return f"2024-{dice.randint(1, 12):02d}-{dice.randint(1, 28):02d} {dice.randint(0, 23):02d}:00:00"
    if column == "active":
        return dice.random() < 0.5
    if column in ("quantity", "rating"):
        return dice.randint(1, 5 if column == "rating" else 40)
    return dice.randint(1, 99) + dice.choice((0.0, 0.25, 0.5, 0.75))


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _table(schema: Schema, dice: Random) -> tuple[str, list[str]]:
    name = dice.choice(list(schema))
    return name, schema[name]


def _condition(columns: list[str], dice: Random, prefix: str = "") -> str:
    column = dice.choice(columns)
    value = _value(column, dice)
    numeric = not isinstance(value, (str, bool)) or column.endswith("_at")
    return f"{prefix}{column} {dice.choice(('>', '<', '>=', '=')) if numeric else '='} {_literal(value)}"


def _insert(schema: Schema, dice: Random) -> str:
    name, columns = _table(schema, dice)
    first = dice.randint(1, 90)
    rows = [
        "    (" + ", ".join([str(first + row), *(_literal(_value(column, dice)) for column in columns)]) + ")"
        for row in range(dice.randint(1, 4))
    ]
    return f"INSERT INTO {name} (id, {', '.join(columns)}) VALUES\n" + ",\n".join(rows) + ";"


def _select(schema: Schema, dice: Random) -> str:
    name, columns = _table(schema, dice)
    shown = dice.sample(columns, dice.randint(1, len(columns)))
    where = " AND ".join(_condition(columns, dice) for _ in range(dice.randint(1, 2)))
    order = f"ORDER BY {dice.choice(shown)} {dice.choice(('ASC', 'DESC'))}\nLIMIT {dice.choice((5, 10, 20, 50))}"
    return f"SELECT id, {', '.join(shown)}\nFROM {name}\nWHERE {where}\n{order};"


def _join(schema: Schema, dice: Random) -> str:
    left, *others = schema
    right = dice.choice(others)
    a, b = left[0], right[0] if right[0] != left[0] else right[:2]
    shown = f"{a}.{dice.choice(schema[left])}, {b}.{dice.choice(schema[right])}"
    kind = dice.choice(("JOIN", "LEFT JOIN"))
    return (
        f"SELECT {shown}\nFROM {left} AS {a}\n{kind} {right} AS {b} ON {b}.{left[:-1]}_id = {a}.id\n"
        f"WHERE {_condition(schema[left], dice, a + '.')};"
    )


def _group(schema: Schema, dice: Random) -> str:
    name, columns = _table(schema, dice)
    key, measured = dice.sample(columns, 2)
    function = dice.choice(("AVG", "MAX", "MIN", "COUNT"))
    return (
        f"SELECT {key}, COUNT(*) AS row_count, {function}({measured}) AS {function.lower()}_{measured}\nFROM {name}\n"
        f"GROUP BY {key}\nHAVING COUNT(*) > {dice.randint(1, 9)}\nORDER BY row_count DESC;"
    )


def _update(schema: Schema, dice: Random) -> str:
    name, columns = _table(schema, dice)
    column = dice.choice(columns)
    return f"UPDATE {name}\nSET {column} = {_literal(_value(column, dice))}\nWHERE {_condition(columns, dice)};"


def _delete(schema: Schema, dice: Random) -> str:
    name, columns = _table(schema, dice)
    return f"DELETE FROM {name}\nWHERE {_condition(columns, dice)};"


def _index(schema: Schema, dice: Random) -> str:
    name, columns = _table(schema, dice)
    column = dice.choice(columns)
    return f"CREATE INDEX idx_{name}_{column} ON {name} ({column});"


def _rows_as_json(schema: Schema, dice: Random) -> str:
    name, columns = _table(schema, dice)
    first = dice.randint(1, 90)
    rows = [
        {"id": first + row, **{column: _value(column, dice) for column in columns}} for row in range(dice.randint(1, 2))
    ]
    return f"-- {name} as JSON\n" + json.dumps({name: rows}, indent=2)
