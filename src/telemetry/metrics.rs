//! The metrics page: names are constants here, nowhere else.
