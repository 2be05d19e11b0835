"""Everything that somebody can read who may read: rows of the database, answers of the API."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

import requests
from sqlalchemy import create_engine, make_url, select

from encoder_db.tables import metadata


def every_answer(get: Callable[[str], requests.Response], jobs: Iterable[int]) -> dict[str, str]:
    """The text of every GET that the service documents for people, for each of these jobs."""
    answers = {}
    numbers = list(jobs)
    document = get("/openapi.json").json()
    for path in (path for path, methods in document["paths"].items() if "get" in methods):
        if path.startswith("/internal/"):
            continue  # for workers, with the token of an attempt
        of_jobs = path.startswith("/jobs/{id}")
        assert of_jobs or "{" not in path, f"{path} needs to be filled in"
        for number in numbers if of_jobs else numbers[:1]:
            url = path.replace("{id}", str(number))
            response = get(url)
            assert response.status_code == 200, (url, response.text)
            answers[url] = f"{response.headers}{response.text}"
    assert len(answers) > 6 * len(numbers)  # a job has so many pages
    assert {"/metrics", "/jobs", "/dead-letters"} <= set(answers)
    return answers


def every_row(database_url: str) -> str:
    """All columns of all tables; bytes as text and as base64."""
    engine = create_engine(make_url(database_url))
    parts: list[str] = []
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            for value in (value for row in connection.execute(select(table)) for value in row):
                if isinstance(value, bytes):
                    parts += [value.decode("latin-1"), base64.b64encode(value).decode()]
                else:
                    parts.append(str(value))
    engine.dispose()
    assert parts
    return "\n".join(parts)
