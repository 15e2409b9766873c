import pytest

from app.cache import PolicyError, cache
from app.cache.policy import Tag


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"expire": -1}, "expire is -1"),
        ({"expire": float("nan")}, "expire is nan"),
        ({"expire": float("inf")}, "expire is inf"),
        ({"expire": True}, "expire is True"),
        ({"expire": "60"}, "expire is '60'"),
        ({"expire": 31 * 86_400}, "0 to 2592000 seconds"),
        ({"expire": 1, "stale": -1}, "stale is -1"),
        ({"expire": 1, "stale_if_error": -0.5}, "stale_if_error is -0.5"),
        ({"expire": 1, "tags": [""]}, "a tag is a text"),
        ({"expire": 1, "tags": ["country:{}"]}, "placeholder is a name"),
        ({"expire": 1, "tags": ["country:{code!r}"]}, "placeholder is a name"),
        ({"expire": 1, "vary": ["*"]}, "vary"),
        ({"expire": 1, "vary": ["Accept-Language"]}, "lower case"),
        ({"expire": 1, "per_user": True}, "needs guard="),
    ],
)
def test_a_wrong_value_fails_at_import_and_names_the_function(
    arguments: dict[str, object], named: str
) -> None:
    with pytest.raises(PolicyError) as raised:

        @cache(**arguments)  # type: ignore[arg-type]
        async def list_planets() -> list[str]:
            return []

    assert "list_planets" in str(raised.value)
    assert named in str(raised.value)


def test_clients_cannot_make_long_tags() -> None:
    tag = Tag.parse("country:{alpha_2}")
    one, other = (tag.render({"alpha_2": "x" * 60_000 + end}) for end in "ab")
    assert len(one) < 100
    assert one != other


def test_a_template_tag_carries_its_family() -> None:
    tag = Tag.parse("country:{alpha_2}")
    assert tag.names({"alpha_2": "FR"}) == ("country:FR", "country:*")
    assert Tag.parse("countries").names({}) == ("countries",)
