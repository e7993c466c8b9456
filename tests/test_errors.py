from __future__ import annotations

import errno

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from transenc.errors import of_machine


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory", "weights"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
        ),
        RuntimeError("I/O error: Cannot allocate memory (os error 12)"),
        ImportError("tokenizers.abi3.so: failed to map segment from shared object"),
    ],
    ids=["python", "system", "torch", "rust", "loader"],
)
def test_whatever_tells_of_too_little_memory_is_the_machines(error: Exception) -> None:
    found = of_machine(error)
    assert found is not None
    assert found.exit_code == 4
    assert str(found).startswith("Out of memory")


def test_a_full_disk_of_a_tokenizer_is_the_machines() -> None:
    with pytest.raises(Exception, match="No space left") as told:
        Tokenizer(WordLevel({"a": 0}, unk_token="a")).save("/dev/full")
    found = of_machine(told.value)
    assert found is not None
    assert found.exit_code == 4


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'x'"),
        ImportError("a.so: failed to map segment from shared object: Operation not permitted"),
        ValueError("memory"),
    ],
)
def test_other_errors_are_not_about_memory(error: Exception) -> None:
    assert of_machine(error) is None
