"""Multipart bodies: the parts that are there, byte for byte, and a refusal for what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.serve.errors import ServeError
from eyas.serve.http import bodies
from eyas.serve.http.bodies import FormPart, split

TYPE = "multipart/form-data; boundary=x"


def body(*parts: tuple[str, bytes], before: bytes = b"", after: bytes = b"\r\n", pad: bytes = b"") -> bytes:
    made = [b"--x%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (pad, head.encode(), content)
            for head, content in parts]  # fmt: skip
    return before + b"".join(made) + b"--x--" + after


@pytest.mark.parametrize(
    "made",
    [
        body(("name=a", b"1"), ('name="f"; filename="b c.jpg"', b"\0\r\n--\r\n")),
        body(("name=a", b"1"), ('name="f"; filename="b"', b"\0\r\n--\r\n"), before=b"a preamble\r\n"),
        body(("name=a", b"1"), ('name="f"; filename="b"', b"\0\r\n--\r\n"), before=b"\r\n", after=b"an epilogue"),
        body(("name=a", b"1"), ('name="f"; filename="b"', b"\0\r\n--\r\n"), pad=b" \t"),
    ],
)
def test_parts_are_what_lies_between_the_boundaries(made: bytes) -> None:
    assert split(made, TYPE, 2) == [FormPart("a", False, b"1"), FormPart("f", True, b"\0\r\n--\r\n")]


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (body(("name=a", b"1")), "multipart/form-data"),
        (body(("name=a", b"1")), "multipart/form-data; boundary=" + "x" * 3000),
        (body(("name=a", b"1"))[:-4], TYPE),
        (body(("name=a", b"1")).replace(b"\r\n\r\n", b"\r\n"), TYPE),
        (body(("filename=a", b"1")), TYPE),
        (body(("name=a", b"1"), pad=b"y"), TYPE),
        (body(*[("name=a", b"1")] * 4), TYPE),
        (body((f"name=a; more={'y' * 9000}", b"1")), TYPE),
        (b"", TYPE),
        (b"no parts", TYPE),
        (b"--x", TYPE),
        (b"--x\r\n", TYPE),
    ],
)
def test_what_is_malformed_is_the_senders_fault(made: bytes, kind: str) -> None:
    with pytest.raises(ServeError) as caught:
        split(made, kind, 3)
    assert caught.value.kind == "invalid"


@given(st.binary(max_size=60), st.integers(1, 9))
def test_content_comes_back_wherever_a_step_ends(content: bytes, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "_STEP", step)
        assert (
            split(body(("name=f", content)), TYPE, 1)[0].content == content.partition(b"\r\n--x")[0]
            or b"--x" in content
        )


@given(
    st.lists(st.sampled_from([b"--x", b"--x--", b"\r\n", b"--", b"a", b"name=a", b"Content-Disposition: form-data;"]))
)
def test_any_bytes_are_read_or_refused(words: list[bytes]) -> None:
    try:
        split(b"".join(words), TYPE, 3)
    except ServeError as error:
        assert error.kind == "invalid"
