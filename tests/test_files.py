"""What was generated, read as files: whole, consistent, and without a trace of the template."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from generated import SERVICE_SOURCE, TEMPLATE, Service, walk
from links import dead_links

# `${{ }}` is the language of workflows, `{{` in Python an escaped brace.
JINJA = re.compile(r"(?<!\$)\{\{|\{%|\{#")
JINJA_IN_PYTHON = re.compile(r"\{[{%#]-?\s*(cookiecutter|if|for|else|end|set|raw|include|block)\b")
# Without the mark of three X, which is a currency.
LEFT_OVER = re.compile(r"cookiecutter|\b(TO" r"DO|FIX" r"ME|HA" r"CK)\b", re.IGNORECASE)


def test_nothing_of_the_template_is_left(service: Service) -> None:
    found = []
    for file in service.files():
        jinja = JINJA_IN_PYTHON if file.suffix == ".py" else JINJA
        for number, line in enumerate(service.text(file).splitlines(), 1):
            if jinja.search(line) or LEFT_OVER.search(line):
                found.append(f"{file}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_no_name_of_a_file_is_left_to_render(service: Service) -> None:
    assert [file for file in service.files() if re.search(r"[{}%]|cookiecutter", str(file))] == []


def test_python_files_of_the_service_hold_no_jinja_in_the_template() -> None:
    sources = [path for path in walk(SERVICE_SOURCE) if path.suffix == ".py"]
    assert sources
    for path in sources:
        assert not JINJA_IN_PYTHON.search(path.read_text(encoding="utf-8")), path


def test_python_files_are_copied_byte_for_byte(service: Service) -> None:
    for path in walk(SERVICE_SOURCE):
        if path.suffix == ".py":
            assert (service.root / path.relative_to(SERVICE_SOURCE)).read_bytes() == path.read_bytes()


def test_python_files_are_written_for_the_oldest_python_supported(service: Service) -> None:
    files = service.files("*.py")
    assert Path("app/main.py") in files
    for file in files:
        ast.parse(service.text(file), str(file), feature_version=(3, 11))


def test_all_configuration_parses(service: Service) -> None:
    for file in service.files("*.toml"):
        assert tomllib.loads(service.text(file)), file
    for file in [*service.files("*.yaml"), *service.files("*.yml")]:
        assert yaml.safe_load(service.text(file)), file
    for file in service.files("*.json"):
        assert json.loads(service.text(file)), file


def test_no_variable_of_the_example_settings_is_given_twice(service: Service) -> None:
    names = re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", service.text(".env.example"), re.MULTILINE)
    assert {"DATABASE_URL", "CACHE_URL", "API_TOKEN", "ENVIRONMENT"} <= set(names)
    assert len(names) == len(set(names))


def test_one_file_gives_the_service_its_name(service: Service) -> None:
    """Processes with different names would not see each other's writes."""
    for file in ("compose.yaml", "Dockerfile", "Makefile"):
        assert "SERVICE_NAME" not in service.text(file)
    assert "\nSERVICE_NAME=\n" in service.text(".env.example")
    image = service.text("Dockerfile").rpartition("\nFROM ")[2]
    assert re.search(r"^COPY .*/pyproject\.toml", image, re.MULTILINE)


def test_the_image_and_compose_know_no_token_and_the_image_is_for_production(service: Service) -> None:
    assert re.search(r"^ +ENVIRONMENT=production ", service.text("Dockerfile"), re.MULTILINE)
    assert " API_TOKEN: ${API_TOKEN:-}\n" in service.text("compose.yaml")
    assert "API_TOKEN" not in service.text("Dockerfile").replace("# Without API_TOKEN", "")


def test_images_have_one_tag_everywhere(service: Service) -> None:
    """compose.yaml decides; workflows may only repeat it."""
    images = {entry["image"] for entry in yaml.safe_load(service.text("compose.yaml"))["services"].values()}
    servers = {image.rpartition(":")[0]: image for image in images if not image.endswith(":local")}
    assert servers.keys() == {"postgres", "redis"}
    assert all(re.fullmatch(r".+:\d[\w.-]*", image) for image in servers.values())

    for file in service.files("*.yml"):
        for image in images_of(yaml.safe_load(service.text(file))):
            assert image == servers.get(image.rpartition(":")[0]), file


def images_of(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["image"]] if isinstance(node.get("image"), str) else []
        return own + [image for value in node.values() for image in images_of(value)]
    if isinstance(node, list):
        return [image for value in node for image in images_of(value)]
    return []


def test_actions_are_pinned_to_a_commit(service: Service) -> None:
    workflows = [*service.root.glob(".github/workflows/*.yml"), *TEMPLATE.glob(".github/workflows/*.yml")]
    assert workflows
    for path in workflows:
        for action in re.findall(r"\buses:\s*(\S+)", path.read_text(encoding="utf-8")):
            assert action.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), (
                f"{path}: {action}"
            )


def test_no_short_name_can_be_that_of_a_dependency(service: Service) -> None:
    project = tomllib.loads(service.text("pyproject.toml"))
    groups = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    requirements = [requirement for group in groups for requirement in group]
    names = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}
    hook = (TEMPLATE / "hooks/pre_gen_project.py").read_text(encoding="utf-8")
    taken = re.search(r'TAKEN = frozenset\(\s+"""(.*?)"""', hook, re.DOTALL)
    assert taken
    assert names - set(taken[1].split()) == set()


@pytest.mark.parametrize("pattern", ["Makefile", "README.md", "LICENSE", ".editorconfig", ".gitattributes"])
def test_text_ends_with_exactly_one_line_break(service: Service, pattern: str) -> None:
    for file in service.files(pattern):
        assert re.search(r"[^\n]\n\Z", service.text(file)), file


@pytest.mark.parametrize("owner", ["template", "service"])
def test_commands_that_are_documented_exist(service: Service, owner: str) -> None:
    root = TEMPLATE if owner == "template" else service.root
    targets = set(
        re.findall(r"^([a-z-]+):.*## ", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    readme = (root / "README.md").read_text(encoding="utf-8")
    if owner == "template":
        targets |= set(re.findall(r"^([a-z-]+):.*## ", service.text("Makefile"), re.MULTILINE))
    named = set(
        re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"`[^`]+`|^```.*?^```", readme, re.M | re.S)))
    )
    assert named - targets == set()
    assert {"help", "test", "check"} <= targets


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Here `it` is\n\n## Twice\n\n## Twice\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[ok](other.md) [ok](other.md#here-it-is) [ok](other.md#twice-1) [ok](#own) [ok](https://x.example)\n"
        "\n## Own\n\n```\n[in a block](nowhere.md)\n```\n"
        "[a](missing.md) [b](other.md#missing) [c](#missing) ![d](missing.png 'title')\n"
        "\n[e]: missing/folder\n",
        encoding="utf-8",
    )
    assert [target for target, _ in dead_links(page)] == [
        "missing.md",
        "other.md#missing",
        "#missing",
        "missing.png",
        "missing/folder",
    ]
