"""The two fixed keys of a document."""

from sparsejax.data.document import Document, address, order_key, split_fraction


def test_split_fraction_is_fixed_for_ever() -> None:
    # Golden values: a change here moves documents between training and validation of every existing run.
    assert split_fraction(b"os.py") == 0.5833318390681427
    assert split_fraction(b"") == 0.14730975496640772


def test_order_key_is_fixed_for_ever() -> None:
    expected = [341167182835947305, 9464663293341541487, 4588893308739181455]
    assert [order_key(position) for position in range(3)] == expected


def test_addresses_of_the_first_part_are_places() -> None:
    assert [address(0, place) for place in range(3)] == [0, 1, 2]
    assert address(1, 0) == 2**40 and address(1023, 5) == 1023 * 2**40 + 5
    assert len({order_key(address(part, place)) for part in range(40) for place in range(40)}) == 1600


def test_fractions_are_spread_evenly() -> None:
    fractions = [split_fraction(str(number).encode()) for number in range(4000)]
    for tenth in range(10):
        assert 330 < sum(tenth <= 10 * fraction < tenth + 1 for fraction in fractions) < 470


def test_a_document_of_text_is_identified_by_its_text() -> None:
    assert Document.of_text("é") == Document("é".encode(), "é")
