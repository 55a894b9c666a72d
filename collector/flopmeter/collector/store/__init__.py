"""Where the books are kept. One native driver per database, one behaviour suite (tests/store), no base class."""
