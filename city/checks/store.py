"""Whether the store of a configuration can be used: found out before anything is made in it, and without a change."""

import os
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from city import tables as t

FREE_MIN = 200 * 1024 * 1024
"""Bytes. Under this a store has hours, not days."""
WHOLE_MAX = 64 * 1024 * 1024
"""Bytes of a database file up to which every page of it is checked; of a larger one only the schema is read."""
CONNECT_S = 5
FOREIGN = "holds tables of another program; name a file or a database of its own for the city"

VERSION = f"this program writes {t.SCHEMA}; run the program that made it, or name a new one"


def is_another(problem: str) -> bool:
    """Return whether a problem is that a store belongs to another program, or to another version of this one."""
    return problem.endswith((FOREIGN, VERSION))


def problem_of(url: str) -> str | None:
    """Return what is wrong with a store, and the next step; None if it can be used or will be made."""
    return _of_file(Path(url.removeprefix("sqlite:///"))) if url.startswith("sqlite:///") else _of_server(url)


def _of_file(path: Path) -> str | None:
    if path.name == ":memory:":
        return 'a store in memory forgets every emergency; name a file: url = "sqlite:///city.db"'
    if not path.parent.is_dir():
        return f"no folder {path.parent}; make it, owned by the user of the service, mode 0700"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"nothing can be made in the folder {path.parent}; give it to the user of the service"
    free = shutil.disk_usage(path.parent).free
    if free < FREE_MIN:
        return f"only {free // 2**20} MB are free at {path.parent}, {FREE_MIN // 2**20} are needed; make room"
    if not path.exists():
        return None
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        return f"{path} is no file that can be read and written; give it to the user of the service"
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            return f"{path} is no SQLite database; name another file, or restore this one from a copy"
    return _of_database(path)


def _of_database(path: Path) -> str | None:
    # Without a WAL the file is whole by itself, and `immutable` makes no file beside it.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=CONNECT_S)
        try:
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if names and t.schema_version.name not in names:
                return f"{path} {FOREIGN}"
            if path.stat().st_size <= WHOLE_MAX:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    return f"{path} is damaged: {verdict[:100]}; restore it from a copy, or move it away to start anew"
            if names:
                return _of_version(
                    [row[0] for row in connection.execute("SELECT version FROM schema_version")], str(path)
                )
            return None
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if "no such column" in str(error):
            return f"{path} {FOREIGN}"
        return f"{path} cannot be read: {error}; restore it from a copy, or move it away to start anew"


def _of_server(url: str) -> str | None:
    try:
        parsed = make_url(url)
        engine = create_engine(parsed, connect_args={"connect_timeout": CONNECT_S})
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        return f"{error}; right would be postgresql+psycopg://USER@HOST/DATABASE"
    except ModuleNotFoundError as error:
        return f"no driver: {error}; next: pip install 'psycopg[binary]'"
    where = parsed.render_as_string(hide_password=True)
    try:
        with engine.connect() as c:
            names = set(inspect(c).get_table_names())
            if t.schema_version.name in names:
                return _of_version(list(c.execute(select(t.schema_version.c.version)).scalars()), where)
            return f"{where} {FOREIGN}" if names & set(t.metadata.tables) else None
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        return f"{where} cannot be opened: {reason[:200]}; check the server, the user and its rights"
    finally:
        engine.dispose()


def _of_version(versions: list[int], where: str) -> str | None:
    if versions not in ([], [t.SCHEMA]):
        return f"{where} has schema {versions}, {VERSION}"
    return None
