from scaleport.errors import first_line, last_line


def test_a_line_that_says_something_stands_for_an_error():
    error = RuntimeError("\n  \nfirst\nsecond\n\n")
    assert first_line(error) == "first"
    assert last_line(error) == "second"


def test_an_error_without_words_is_named_by_its_kind():
    assert first_line(MemoryError()) == last_line(MemoryError()) == "MemoryError()"
