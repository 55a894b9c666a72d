"""Names that come from outside: what may stand, and refusals that say what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import agent_id, check_entity, check_label
from flopmeter.contract.limits import MAX_LABEL_CHARS


@pytest.mark.parametrize(
    "uuid",
    [
        "GPU-8f6d1c2a-0b1e-4c5d-9e7f-001122334455",
        "MIG-8f6d1c2a-0b1e-4c5d-9e7f-001122334455",
        "GPU-0",
    ],
)
def test_nvidia_uuids_name_entities(uuid: str) -> None:
    assert check_entity(uuid) == uuid


@pytest.mark.parametrize(
    "uuid",
    [
        "",
        "0",
        "gpu-8f6d1c2a",
        "GPU-",
        "GPU--1",
        "GPU-1\n",
        "GPU-1 ",
        " GPU-1",
        "GPU-1::2",
        "nvidia0/vgpu0",
        "GPU-" + "a" * 129,
        "GPU-ä",
        "GPU-1\0",
        "GPU-../../x",
    ],
)
def test_anything_else_names_no_entity(uuid: str) -> None:
    with pytest.raises(ContractError, match="entity: expected an NVIDIA UUID"):
        check_entity(uuid)


def test_an_overlong_entity_is_not_quoted_whole() -> None:
    with pytest.raises(ContractError) as e:
        check_entity("x" * 100_000)
    assert len(str(e.value)) < 200


@pytest.mark.parametrize("label", ["", "llama-3", "größe", "a b", "ns/pod", "x" * MAX_LABEL_CHARS])
def test_labels(label: str) -> None:
    assert check_label("run", label) == label


@pytest.mark.parametrize(
    "label",
    [" a", "a ", " ", "a\nb", "a\tb", "a\x1b[31m", "\0", "a\u202eb", "x" * (MAX_LABEL_CHARS + 1)],
)
def test_labels_that_could_lie_to_a_reader_are_refused(label: str) -> None:
    with pytest.raises(ContractError, match="run: expected"):
        check_label("run", label)


@given(st.text(max_size=400))
def test_a_label_is_taken_whole_or_refused(text: str) -> None:
    try:
        assert check_label("job", text) == text
    except ContractError:
        assert len(text) > MAX_LABEL_CHARS or not text.isprintable() or text != text.strip()


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_public_keys_have_32_bytes(size: int) -> None:
    with pytest.raises(ContractError, match="expected 32 bytes"):
        agent_id(bytes(size))
